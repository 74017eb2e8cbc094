"""Kill, interrupt and terminate runs at random moments, and count what was lost: nothing.

    python benchmarks/kill_and_resume.py [--data_dir DATA]

Each trial is a process of its own; it is compared with an uninterrupted run at tolerance 0: every
tensor and number in `last.ckpt` and `best.ckpt`, and every figure in `metrics.csv`.
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


def newest(folder: Path) -> Run | None:
    """Return the newest run in a folder that can be resumed."""
    found = [run for run in run_directory.list_runs(folder / LOGS_FOLDER) if run.recent().exists()]
    return found[-1] if found else None


def go_on(fit: list[str], folder: Path) -> list[str]:
    """What a user types next: `resume`, or `fit` again where nothing was saved yet."""
    return ["resume"] if newest(folder) else fit


def finish(fit: list[str], folder: Path) -> Run:
    """Let a run come to its end."""
    process = start(go_on(fit, folder), folder)
    process.join()
    assert process.exitcode == 0, (folder / "printed").read_text()[-2000:]
    run = newest(folder)
    assert run is not None
    return run


def same(one: Run, other: Run) -> bool:
    """Compare all that two runs leave behind; say where they differ."""
    where = first_difference_of_runs(one, other)
    if where is not None:
        print(where)
    return where is None


def leftovers(folder: Path) -> set[Path]:
    """The half-written files; their names tell the process that wrote them."""
    return set(folder.rglob(".*.tmp"))


def kills(fit: list[str], place: Path, count: int, whole: Run, seconds: float) -> None:
    """Kill each run once, at a random moment of its life, and let it go on to its end."""
    equal = before = 0
    for trial in range(count):
        folder = place / f"kill_{trial}"
        process = start(fit, folder)
        time.sleep(random.uniform(0, seconds))
        process.kill()
        process.join()
        before += newest(folder) is None
        equal += same(finish(fit, folder), whole) and not leftovers(folder)
        shutil.rmtree(folder)
    print(
        f"kill -9 at random moments: {equal}/{count} equal in every bit "
        f"({before} of them before the first save)"
    )


def kills_while_saving(fit: list[str], place: Path, count: int) -> None:
    """Kill one run again and again while it saves.

    Each time every checkpoint has to be whole, and what the process before had half written to be
    gone by the time that this one saves.
    """
    folder = place / "saving"
    process = start(fit, folder)
    while newest(folder) is None:
        time.sleep(0.01)
    process.kill()
    process.join()
    run = newest(folder)
    assert run is not None
    done = unreadable = left = met = 0
    while done < count:
        before = leftovers(folder)
        process = start(["resume"], folder)
        while process.is_alive() and not leftovers(run.checkpoints) - before:
            pass
        assert process.is_alive(), "the run came to its end"
        process.kill()
        process.join()
        met += len(before)
        left += len(before & leftovers(folder))
        if not leftovers(run.checkpoints) - before:
            continue  # it was quicker than the kill
        done += 1
        for path in run.checkpoints.glob("*.ckpt"):
            try:
                read_checkpoint(path)
            except UserError:
                unreadable += 1
    print(
        f"kills during a save: {count}, unreadable checkpoints {unreadable}, "
        f"half-written files met by the next start {met}, left by it {left}"
    )


def signals(fit: list[str], place: Path, count: int, whole: Run, seconds: float) -> None:
    """GracefulShutdown and terminate runs at random moments of their training."""
    for number in (signal.SIGINT, signal.SIGTERM):
        right = equal = 0
        waits: list[float] = []
        while len(waits) < count:
            folder = place / f"{number.name}_{len(waits)}"
            shutil.rmtree(folder, ignore_errors=True)
            process = start(fit, folder)
            while process.is_alive() and newest(folder) is None:
                time.sleep(0.005)
            time.sleep(random.uniform(0, 0.5 * seconds))
            sent = time.perf_counter()
            if process.pid is None or not process.is_alive():
                continue  # it was done already
            os.kill(process.pid, number)
            process.join()
            waits.append(time.perf_counter() - sent)
            right += process.exitcode in (128 + number, -number)
            equal += same(finish(fit, folder), whole)
        print(
            f"{number.name}: {len(waits)} sent, {right} right exit statuses, {equal} resumed to "
            f"the same bits; ended after {statistics.median(waits):.2f} s (median), "
            f"{max(waits):.2f} s (longest)"
        )


def main() -> None:
    """Run all trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", help="a folder with MNIST; without it the embedded digits")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--saves", type=int, default=100)
    parser.add_argument("--signals", type=int, default=50)
    options = parser.parse_args()
    data = ["--data.dataset", "digits"]
    if options.data_dir:
        where = str(Path(options.data_dir).resolve())
        data = ["--data.dataset", "mnist", "--data.data_dir", where]
        data += ["--trainer.limit_train_batches", "40", "--trainer.limit_test_batches", "1"]
    fit = ["fit", *data, *LENGTH]
    with tempfile.TemporaryDirectory() as place:
        whole = finish(fit, Path(place) / "warm")
        began = time.perf_counter()
        whole = finish(fit, Path(place) / "whole")
        seconds = time.perf_counter() - began
        print(f"an uninterrupted run takes {seconds:.1f} s")
        kills(fit, Path(place), options.kills, whole, seconds)
        endless = [
            *fit,
            "--model.network",
            "DeepCNN",
            "--trainer.max_epochs",
            "1000",
            "--autosave",
            "0",
        ]
        kills_while_saving(endless, Path(place), options.saves)
        signals(fit, Path(place), options.signals, whole, seconds)


if __name__ == "__main__":
    main()
