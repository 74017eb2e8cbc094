"""Mutate the files of a run, and check that no command executes code, fails or wastes resources.

    python benchmarks/fuzz_files.py [--count 5000] [--seed 0] [--first 0] [--processes 2]

The original is a small run on the bundled digits. Each trial copies it, mutates one file (types,
structures, class names, sizes, NaN, corrupt bytes, links, pipes) as another user could, with a
correct digest but without a signature, and runs one command that reads the file, in a forked
process under an audit hook. A trial fails if the command, compared with the same command on the
original,

- imports a module, starts a process, opens a socket, or writes outside the folder of the trial,
- prints a traceback, reports a bug, or is ended by a signal,
- uses more than 10 s of additional CPU time, 60 s of time, or 1 GB of additional memory.

A failure prints its number: `--first NUMBER --count 1` repeats it with the output of the command.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from audited_process import CommandResult, preload, run_command
from file_mutations import NUM_KINDS, mutate
from PIL import Image, ImageDraw

# The limits in addition to the original's. CPU time, because other programs may run as well.
MAX_EXTRA_CPU_SECONDS, MAX_EXTRA_SECONDS = 10, 60
MAX_EXTRA_KB = 2**20  # 1 GB

RUN = "lightning_logs/version_0"
LAST = f"{RUN}/checkpoints/last.ckpt"
FIT = ["fit", "--data.dataset", "digits", "--model.network", "TinyCNN", "--trainer.max_epochs", "1"]
FIT += ["--trainer.limit_train_batches", "3", "--trainer.limit_val_batches", "1"]
LONGER = ["--trainer.max_epochs", "2"]
EXPORT = ["export", "0", "--format", "pth", "--check_images", "20"]
EXPORT_SAFETENSORS = ["export", "0", "--format", "safetensors", "--check_images", "20"]

# The commands that read each file.
COMMANDS: dict[str, list[list[str]]] = {
    "best.ckpt": [
        ["test", "0"],
        ["validate", "0"],
        ["predict", "seven.png", "--run", "0"],
        EXPORT,
        EXPORT_SAFETENSORS,
        ["test", "0,1"],
        [*FIT, "--init_from", "0"],
    ],
    "last.ckpt": [
        ["resume", "0", *LONGER],
        ["resume", "0"],
        ["resume", LAST, *LONGER],
        ["test", LAST],
        [*FIT, *LONGER, "--auto_resume", "true"],
        ["fit", "--ckpt_path", LAST, *LONGER],
    ],
    "config.yaml": [
        ["resume", "0", *LONGER],
        ["test", "0"],
        ["runs", "0", "1"],
        EXPORT,
        [*FIT, *LONGER, "--auto_resume", "true"],
        # With the bundled digits, because another data set would be downloaded.
        ["fit", "--config", f"{RUN}/config.yaml", "--data.dataset", "digits", *LONGER],
    ],
    "summary.json": [
        ["runs"],
        ["runs", "--json"],
        ["runs", "--csv"],
        ["runs", "0", "1"],
        ["predict", "seven.png", "--run", "best"],
        EXPORT,
        ["resume", "0", *LONGER],
        ["report", "0"],
    ],
    "metrics.csv": [["runs", "0", "1"], ["report", "0"], ["resume", "0", *LONGER]],
    "predictions.csv": [["runs", "0", "1"], ["report", "0"], ["resume", "0", *LONGER]],
    "events": [["resume", "0", *LONGER], [*FIT, *LONGER, "--auto_resume", "true"]],
    "model.safetensors": [["predict", "seven.png", "--run", f"{RUN}/model.safetensors"]],
}
# Relative frequencies of the files and commands. `report` is slow, and therefore rare.
FILE_WEIGHTS = {"best.ckpt": 6, "last.ckpt": 8, "config.yaml": 6, "summary.json": 4}
OTHER_FILE_WEIGHT = 2
COMMAND_WEIGHTS = {"report": 1}
OTHER_COMMAND_WEIGHT = 8


class Trial(NamedTuple):
    """A file to mutate, and a command that reads it."""

    number: int
    file: str
    command: tuple[str, ...]


def create_original(folder: Path) -> None:
    """Train two small runs, and export one of them."""
    image = Image.new("L", (120, 120), 255)
    ImageDraw.Draw(image).line([(30, 30), (90, 30), (50, 95)], 0, 9)
    image.save(folder / "seven.png")
    for seed in ("1", "2"):
        result = run_command([*FIT, "--seed_everything", seed], folder, 120)
        assert result.status == 0, result.output
    export = [*EXPORT_SAFETENSORS, "--output", f"{RUN}/model.safetensors"]
    result = run_command(export, folder, 60)
    assert result.status == 0, result.output


def select_trial(number: int, seed: int) -> tuple[Trial, random.Random]:
    """Return a trial, which depends only on its number and the seed, and the random generator."""
    rng = random.Random(f"{seed}:{number}")
    files = list(COMMANDS)
    file = rng.choices(files, [FILE_WEIGHTS.get(name, OTHER_FILE_WEIGHT) for name in files])[0]
    commands = COMMANDS[file]
    weights = [COMMAND_WEIGHTS.get(command[0], OTHER_COMMAND_WEIGHT) for command in commands]
    return Trial(number, file, tuple(rng.choices(commands, weights)[0])), rng


def file_path(file: str, folder: Path) -> Path:
    """Return the path of a file of the run, by its key in `COMMANDS`."""
    if file == "events":
        return next((folder / RUN).glob("events.out.tfevents.*"))
    return folder / RUN / ("checkpoints" if file.endswith(".ckpt") else "") / file


class Fuzzer:
    """Runs trials, and compares each with the same command on the original."""

    def __init__(self, original: Path, workspace: Path, seed: int) -> None:
        self.original = original
        self.workspace = workspace
        self.seed = seed
        self.expected: dict[tuple[str, ...], CommandResult] = {}

    def run_on_original(self, command: tuple[str, ...]) -> CommandResult:
        """Run a command on a copy of the original, and store the result for the trials."""
        folder = self.workspace / f"original_{len(self.expected)}"
        shutil.copytree(self.original, folder, symlinks=True)
        self.expected[command] = run_command(list(command), folder, 120)
        shutil.rmtree(folder)
        return self.expected[command]

    def run_trial(self, number: int) -> tuple[Trial, str, CommandResult, list[str]]:
        """Run a trial; return it, the change of the file, the result, and the violations."""
        trial, rng = select_trial(number, self.seed)
        expected = self.expected[trial.command]
        folder = self.workspace / f"trial_{number}"
        shutil.copytree(self.original, folder, symlinks=True)
        change = mutate(trial.file, file_path(trial.file, folder), rng)
        timeout = expected.cpu_seconds + MAX_EXTRA_SECONDS
        result = run_command(list(trial.command), folder, timeout)
        shutil.rmtree(folder, ignore_errors=True)
        return trial, change, result, find_violations(result, expected)


def find_violations(result: CommandResult, expected: CommandResult) -> list[str]:
    """List the effects of a mutated file that are not allowed."""
    violations = sorted(result.events - expected.events)
    if "Traceback" in result.output or "looks like a bug" in result.output:
        violations.append("traceback")
    if result.status < 0:
        violations.append(f"signal {-result.status}")
    if result.cpu_seconds > expected.cpu_seconds + MAX_EXTRA_CPU_SECONDS:
        original = f"{expected.cpu_seconds:.1f} s on the original"
        violations.append(f"{result.cpu_seconds:.0f} s, {original}")
    if result.memory_kb > expected.memory_kb + MAX_EXTRA_KB:
        violations.append(f"{result.memory_kb / 2**20:.1f} GB")
    return violations


def run_trials(options: argparse.Namespace, original: Path, workspace: Path) -> int:
    """Run all trials and print the failures and a summary; return the number of failures."""
    fuzzer = Fuzzer(original, workspace, options.seed)
    numbers = range(options.first, options.first + options.count)
    for command in sorted({select_trial(number, options.seed)[0].command for number in numbers}):
        result = fuzzer.run_on_original(command)
        assert result.status == 0 or "--auto_resume" in command, (command, result.output)
    start = time.perf_counter()
    counts: Counter[str] = Counter()
    failures = errors = 0
    with get_context("fork").Pool(options.processes) as pool:
        for trial, change, result, violations in pool.imap(fuzzer.run_trial, numbers):
            counts[trial.file] += 1
            errors += result.status != 0
            failures += bool(violations)
            if counts.total() % 500 == 0:
                print(f"after {time.perf_counter() - start:.0f} s: {counts.total()}", flush=True)
            if violations or options.count == 1:
                print(f"{trial.number}: {trial.file}, {change}; {' '.join(trial.command)}")
                print(f"    {'; '.join(violations[:4])}")
                print(f"    {result.output.strip()[-600:]}", flush=True)
    print(
        f"{len(numbers):,} mutations ({', '.join(f'{n} {name}' for name, n in counts.items())}): "
        f"{failures} failures, {errors} ended with an error message, "
        f"{len(numbers) - errors} succeeded; {time.perf_counter() - start:.0f} s, {NUM_KINDS} kinds"
    )
    return failures


def main() -> int:
    """Create the original and run the trials; return 1 if one fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=5_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    preload()
    with tempfile.TemporaryDirectory(prefix="fuzz_files_") as workspace:
        os.environ["XDG_CONFIG_HOME"] = f"{workspace}/config"
        original = Path(workspace) / "original"
        original.mkdir()
        create_original(original)
        return 1 if run_trials(options, original, Path(workspace)) else 0


if __name__ == "__main__":
    sys.exit(main())
