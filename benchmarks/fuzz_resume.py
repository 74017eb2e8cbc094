"""Interrupt runs of random configurations at random moments, resume them, and compare all files.

    python benchmarks/fuzz_resume.py --count 250 --first 0 --seed 1

A configuration depends only on `seed` and its number: `--first N --count 1` repeats one. It is
trained once without interruption, and once with up to eight signals (SIGKILL, SIGTERM or SIGINT) at
a random time or in a random call, for example in a step, a save, a validation or the test. After
each signal, `resume` continues the run, or `fit` starts it again if nothing is saved. Some runs are
extended: interrupted with one length, resumed to a greater length, and compared with a run that had
the greater length from the start.

These must be equal at tolerance 0: every checkpoint (`best`, `last`, `last-1`, … and those of a
ModelCheckpoint), `metrics.csv`, `predictions.csv`, `model.pth`, `summary.json`, and the set of
TensorBoard events (tag, step, value), each of which must occur once. Durations, dates, speeds,
device statistics and the order of the event files are not compared, because they depend on time or
on the process. For an extended run, the lengths in the configuration of a checkpoint are not
compared.

Each line contains a verdict: `equal`; `refused` before training, with the reason; DIFFERENT; or
LOST, if a command failed.
"""

import argparse
import shlex
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.fuzzing import run_cases


def main() -> int:
    """Print a verdict per configuration and a summary; return 1 if any is different or lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=250)
    parser.add_argument("--keep", type=Path, help="copy the folders of failures to this folder")
    parser.add_argument(
        "--options",
        default="",
        help="additional options of each run, such as '--trainer.accelerator gpu'",
    )
    options = parser.parse_args()
    verdicts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    num_signals = 0
    start = time.perf_counter()
    for number, case, verdict in run_cases(
        options.seed, options.first, options.count, options.keep, shlex.split(options.options)
    ):
        verdicts[verdict.kind] += 1
        num_signals += len(verdict.signals)
        extension = ["then", *case.extended] if case.extended else []
        arguments = shlex.join([*case.options[4:], *case.length, *extension])
        name = f"{options.seed}/{number}"
        signals = " ".join(verdict.signals)
        print(f"{name} {verdict.kind} [{signals}] {arguments}", flush=True)
        if verdict.reason:
            print(f"    {verdict.reason}", flush=True)
        if verdict.kind == "refused":
            reasons[verdict.reason] += 1
    minutes = (time.perf_counter() - start) / 60
    summary = ", ".join(f"{count} {kind}" for kind, count in sorted(verdicts.items()))
    total = f"{options.count} configurations, {num_signals} signals"
    print(f"{total}: {summary} ({minutes:.1f} minutes)")
    for reason, count in reasons.most_common():
        print(f"  refused {count}: {reason}")
    return 1 if verdicts.keys() & {"DIFFERENT", "LOST"} else 0


if __name__ == "__main__":
    sys.exit(main())
