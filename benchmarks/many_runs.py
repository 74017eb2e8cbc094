"""Measure commands and functions that look at all runs, with up to 10,000 run directories.

    python benchmarks/many_runs.py [--counts 10 100 1000 10000] [--rounds 5] [--before DIR]

The runs have a `summary.json` of 3 kB: twice that of a typical run. Each measurement is a process.
Of a command it is the whole process; of a function only the call, without the start of Python and
the imports. `--before` is a checkout of another version of this project: both are measured
alternately.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from alternation import write_json

ROOT = Path(__file__).parent.parent
SUMMARY = ROOT / "mnist_lightning" / "pretrained" / "summary.json"
SUMMARY_BYTES = 3_000
COMMANDS = {
    "python": ["-c", "import mnist_lightning.cli.runs"],  # the start alone
    "runs": ["-m", "mnist_lightning", "runs"],
    "runs --sort best": ["-m", "mnist_lightning", "runs", "--sort", "best"],
    "runs --json": ["-m", "mnist_lightning", "runs", "--json"],
}
# Functions that commands call: `predict`, `report`, `test`, … find a run, `fit` creates one.
CALLS = {
    "best": "lookup.find_network('best', root)",
    "last": "lookup.find('last', root)",
    "number": "lookup.find('3', root)",
    "create": "run_directory.create_next(root)",
}
SCRIPT = """
import shutil, sys, time
from pathlib import Path
from mnist_lightning.runs import lookup, run_directory
root = Path("lightning_logs")
start = time.perf_counter()
result = {call}
print(time.perf_counter() - start)
if hasattr(result, "folder"):
    shutil.rmtree(result.folder)
"""


def create_runs(root: Path, count: int) -> None:
    """Create runs with a configuration, a checkpoint, metrics and a summary, from fixed numbers."""
    generator = random.Random(0)
    facts: dict[str, Any] = json.loads(SUMMARY.read_text())
    missing = SUMMARY_BYTES - SUMMARY.stat().st_size
    checksums = {f"source_{number}": f"{number:064x}" for number in range(missing // 85)}
    networks = ("classic_cnn.ClassicCNN", "digitnet.DigitNet", "tiny_cnn.TinyCNN")
    for version in range(count):
        folder = root / f"version_{version}"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "best.ckpt").write_bytes(b"checkpoint")
        (folder / "config.yaml").write_text(f"seed_everything: {version}\n" * 100)
        (folder / "metrics.csv").write_text("step,epoch,val/loss\n" + "100,1,0.1234567\n" * 10)
        total = 10_000
        correct = generator.randrange(9_000, total)
        changed = {
            "state": generator.choice(["finished"] * 18 + ["interrupted", "failed"]),
            "dataset": generator.choice(["mnist"] * 9 + ["digits"]),
            "network": {
                "class_path": f"mnist_lightning.networks.{generator.choice(networks)}",
                "init_args": {"num_classes": 10},
            },
            "seed": generator.randrange(1_000),
            "epochs": generator.randrange(1, 50),
            "fit_seconds": round(generator.uniform(1, 10_000), 2),
            "val/accuracy": round(generator.uniform(0.9, 0.999), 4),
            "val/loss": round(generator.uniform(0.01, 1), 6),
            "test/accuracy": correct / total,
            "test/correct": correct,
            "test/total": total,
            "extra_checksums": checksums,
        }
        (folder / "summary.json").write_text(json.dumps(facts | changed, indent=2) + "\n")


def measure(name: str, folder: Path, checkout: Path) -> float:
    """Return the seconds of a command, or of a call."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    call = CALLS.get(name)
    arguments = COMMANDS[name] if call is None else ["-c", SCRIPT.format(call=call)]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    return seconds if call is None else float(done.stdout)


def main() -> None:
    """Print the median and the fastest time of each command and call, for each number of runs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 100, 1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[*COMMANDS, *CALLS], metavar="NAME")
    parser.add_argument("--before", type=Path, metavar="DIR")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    checkouts = {"now": ROOT} | ({"before": options.before} if options.before else {})
    results: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as workspace:
        for count in options.counts:
            folder = Path(workspace, str(count))
            create_runs(folder / "lightning_logs", count)
            for round_number in range(options.rounds + 1):
                for name in options.only:
                    for version, checkout in checkouts.items():
                        seconds = measure(name, folder, checkout.resolve())
                        if round_number > 0:  # the first one fills the caches
                            results.setdefault(f"{name}, {count:,}, {version}", []).append(seconds)
    for label, values in results.items():
        print(f"{label:32}{statistics.median(values):>8.3f} s{min(values):>8.3f} s")
    write_json({"seconds": results}, options.json)


if __name__ == "__main__":
    main()
