"""Interrupt runs of random configurations at random moments, resume them, compare everything.

    python benchmarks/fuzz_resume.py --count 250 --first 0 --seed 1

A configuration is drawn from `seed` and its number, so that `--first N --count 1` repeats one. It
is trained once without interruption and once with up to eight signals: SIGKILL, SIGTERM or SIGINT,
at a random time or in a certain call (inside a step, a save, a validation, the test, the end).
After each signal follows the command that a user would type: `resume`, or `fit` again where nothing
was saved yet. Some runs are extended: interrupted with one length, then resumed to a greater one,
and compared with a run that had the greater one from the start.

At tolerance 0, by name, these are equal: every checkpoint (`best`, `last`, `last-1`, … and those of
a ModelCheckpoint), `metrics.csv`, `predictions.csv`, `model.pth`, `summary.json`, and the set of
TensorBoard events (tag, step, value), each of which occurs once. Not compared, because they are
measured by a clock or name the process: durations, dates, speeds, device statistics, the order of
the event files. The lengths in a checkpoint's configuration are not compared for an extended run.

Each line has a verdict: `equal`; `refused` before training, with the reason; DIFFERENT; or LOST,
where a command failed.
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
    """Print a line a case and a summary; return 1 if a run differs or is lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=250)
    parser.add_argument("--keep", type=Path, help="copy the folders of failures there")
    parser.add_argument(
        "--options",
        default="",
        help="more options of each run, such as '--trainer.accelerator gpu'",
    )
    options = parser.parse_args()
    kinds: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    signals = 0
    began = time.perf_counter()
    for number, case, verdict in run_cases(
        options.seed, options.first, options.count, options.keep, shlex.split(options.options)
    ):
        kinds[verdict.kind] += 1
        signals += len(verdict.signals)
        words = shlex.join(
            [*case.options[4:], *case.length, *(["then", *case.extended] if case.extended else [])]
        )
        print(
            f"{options.seed}/{number} {verdict.kind} [{' '.join(verdict.signals)}] {words}",
            flush=True,
        )
        if verdict.reason:
            print(f"    {verdict.reason}", flush=True)
        if verdict.kind == "refused":
            reasons[verdict.reason] += 1
    minutes = (time.perf_counter() - began) / 60
    shown = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    print(f"{options.count} configurations, {signals} signals: {shown} ({minutes:.1f} minutes)")
    for reason, count in reasons.most_common():
        print(f"  refused {count}: {reason}")
    return 1 if kinds.keys() & {"DIFFERENT", "LOST"} else 0


if __name__ == "__main__":
    sys.exit(main())
