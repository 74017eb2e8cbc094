"""Kill, interrupt and terminate runs at random moments, resume them, and compare the results.

    python benchmarks/kill_and_resume.py [--data_dir DATA]

Each trial is a process. It is compared with an uninterrupted run at tolerance 0: every tensor and
number in `last.ckpt` and `best.ckpt`, and every value in `metrics.csv`.
"""

import argparse
import os
import random
import shutil
import signal
import statistics
import tempfile
import time
from pathlib import Path

from mnist_lightning.cli.verify import first_difference_of_runs, start
from mnist_lightning.errors import UserError
from mnist_lightning.runs import run_directory
from mnist_lightning.runs.checkpoint import read_checkpoint
from mnist_lightning.runs.run_directory import LOGS_FOLDER, Run

LENGTH = ["--trainer.max_epochs", "3", "--trainer.log_every_n_steps", "5", "--autosave", "0.001"]
# For the kills during a save: large checkpoints, and a run that does not end before them.
ENDLESS = ["--model.network", "DeepCNN", "--trainer.max_epochs", "1000", "--autosave", "0"]


def newest_run(folder: Path) -> Run | None:
    """Return the newest run in a folder that can be resumed."""
    runs = [run for run in run_directory.list_runs(folder / LOGS_FOLDER) if run.recent().exists()]
    return runs[-1] if runs else None


def run_to_end(fit: list[str], folder: Path) -> Run:
    """Resume the newest run, or start one if nothing is saved; wait for its end."""
    process = start(["resume"] if newest_run(folder) else fit, folder)
    process.join()
    assert process.exitcode == 0, (folder / "printed").read_text()[-2000:]
    run = newest_run(folder)
    assert run is not None
    return run


def is_equal(run: Run, expected: Run) -> bool:
    """Compare two runs; print the first difference."""
    difference = first_difference_of_runs(run, expected)
    if difference is not None:
        print(difference)
    return difference is None


def temporary_files(folder: Path) -> set[Path]:
    """Return the half-written files; their names contain the process that wrote them."""
    return set(folder.rglob(".*.tmp"))


def try_kills(fit: list[str], workspace: Path, count: int, expected: Run, seconds: float) -> None:
    """Kill runs at a random moment, resume them to the end, and compare them."""
    equal = before_save = 0
    for trial in range(count):
        folder = workspace / f"kill_{trial}"
        process = start(fit, folder)
        time.sleep(random.uniform(0, seconds))
        process.kill()
        process.join()
        before_save += newest_run(folder) is None
        equal += is_equal(run_to_end(fit, folder), expected) and not temporary_files(folder)
        shutil.rmtree(folder)
    print(
        f"kill -9 at a random moment: {equal} of {count} bit-identical "
        f"({before_save} were killed before the first save)"
    )


def try_kills_during_save(fit: list[str], workspace: Path, count: int) -> None:
    """Kill a run repeatedly while it saves.

    After each kill, every checkpoint must be readable. The next process must delete the
    half-written files of the killed one before it saves.
    """
    folder = workspace / "saving"
    process = start(fit, folder)
    while newest_run(folder) is None:
        time.sleep(0.01)
    process.kill()
    process.join()
    run = newest_run(folder)
    assert run is not None
    kills = unreadable = num_found = num_left = 0
    while kills < count:
        before = temporary_files(folder)
        process = start(["resume"], folder)
        while process.is_alive() and not temporary_files(run.checkpoints) - before:
            pass
        assert process.is_alive(), "the run ended before the kill"
        process.kill()
        process.join()
        num_found += len(before)
        num_left += len(before & temporary_files(folder))
        if not temporary_files(run.checkpoints) - before:
            continue  # the save was completed before the kill
        kills += 1
        for path in run.checkpoints.glob("*.ckpt"):
            try:
                read_checkpoint(path)
            except UserError:
                unreadable += 1
    print(
        f"kill -9 during a save: {count} kills, {unreadable} unreadable checkpoints; "
        f"the next start found {num_found} half-written files and left {num_left}"
    )


def try_signals(fit: list[str], workspace: Path, count: int, expected: Run, seconds: float) -> None:
    """Interrupt and terminate runs at a random moment after the first save; compare them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        correct_status = equal = 0
        delays: list[float] = []
        while len(delays) < count:
            folder = workspace / f"{number.name}_{len(delays)}"
            shutil.rmtree(folder, ignore_errors=True)
            process = start(fit, folder)
            while process.is_alive() and newest_run(folder) is None:
                time.sleep(0.005)
            time.sleep(random.uniform(0, 0.5 * seconds))
            sent = time.perf_counter()
            if process.pid is None or not process.is_alive():
                continue  # the run has already ended
            os.kill(process.pid, number)
            process.join()
            delays.append(time.perf_counter() - sent)
            correct_status += process.exitcode == 128 + number
            equal += is_equal(run_to_end(fit, folder), expected)
        print(
            f"{number.name} at a random moment: of {count}, {correct_status} with the correct "
            f"status and {equal} bit-identical; ended after {statistics.median(delays):.2f} s "
            f"(median), {max(delays):.2f} s (maximum)"
        )


def main() -> None:
    """Run all trials, and print a summary of each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", help="a folder with MNIST; by default, the bundled digits")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--saves", type=int, default=100)
    parser.add_argument("--signals", type=int, default=50)
    options = parser.parse_args()
    data = ["--data.dataset", "digits"]
    if options.data_dir:
        data = ["--data.dataset", "mnist", "--data.data_dir", str(Path(options.data_dir).resolve())]
        data += ["--trainer.limit_train_batches", "40", "--trainer.limit_test_batches", "1"]
    fit = ["fit", *data, *LENGTH]
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        run_to_end(fit, workspace / "warm_up")
        began = time.perf_counter()
        expected = run_to_end(fit, workspace / "uninterrupted")
        seconds = time.perf_counter() - began
        print(f"an uninterrupted run takes {seconds:.1f} s")
        try_kills(fit, workspace, options.kills, expected, seconds)
        try_kills_during_save([*fit, *ENDLESS], workspace, options.saves)
        try_signals(fit, workspace, options.signals, expected, seconds)


if __name__ == "__main__":
    main()
