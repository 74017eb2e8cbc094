"""Runs with random configurations that are interrupted at random, resumed and compared."""

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mnist_lightning.runs import run_directory
from mnist_lightning.runs.recent_checkpoints import recent_checkpoints
from mnist_lightning.runs.run_directory import LOGS_FOLDER, Run
from tests.processes import (
    CHECKPOINTING,
    CLASSIFIER,
    RUNNER,
    SignalPoint,
    start,
    start_marker,
    wait_for_exit,
)
from tests.random_cases import Case, Options, draw_case
from tests.run_differences import differences

MAX_SIGNALS = 8
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


class Verdict(NamedTuple):
    """The result of a case: `equal`, `refused`, `DIFFERENT` or `LOST`, with the reason."""

    kind: str
    reason: str
    signals: list[str]


# Calls at which a process sends itself a signal, and the maximum number of the call.
TRAINING_POINTS = [
    (CLASSIFIER, "DigitClassifier.training_step", 30),
    (CLASSIFIER, "DigitClassifier.validation_step", 4),
    (CLASSIFIER, "DigitClassifier.on_validation_epoch_end", 4),
    (CLASSIFIER, "DigitClassifier.on_train_batch_end", 30),
    (CLASSIFIER, "DigitClassifier.on_train_epoch_end", 3),
    (CHECKPOINTING, "RunCheckpoints.on_step_completed", 30),
    (CHECKPOINTING, "RunCheckpoints.on_epoch_completed", 4),
    (CHECKPOINTING, "RunCheckpoints._save_last", 5),
    (CHECKPOINTING, "RunCheckpoints._rotate", 5),
    ("mnist_lightning.training.checkpoint_io", "AtomicCheckpointIO.save_checkpoint", 6),
    (CHECKPOINTING, "write_atomically", 6),
    ("mnist_lightning.training.logger", "RunLogger.flush", 8),
    ("mnist_lightning.runs.metrics_csv", "write_atomically", 3),
    ("mnist_lightning.runs.predictions_csv", "write_atomically", 1),
    ("mnist_lightning.training.callbacks.run_summary", "RunSummary._write", 6),
    ("os", "fsync", 40),
    (RUNNER, "_build_session", 1),
    (CHECKPOINTING, "remove_later_checkpoints", 1),
    ("mnist_lightning.cli.resume", "truncate_logs", 1),
]
FINAL_POINTS = [
    (CLASSIFIER, "DigitClassifier.on_train_end", 1),
    (CLASSIFIER, "DigitClassifier.test_step", 2),
    (CHECKPOINTING, "RunCheckpoints.on_training_completed", 1),
    ("mnist_lightning.training.logger", "RunLogger.close", 1),
    ("mnist_lightning.training.callbacks.run_summary", "RunSummary.finish", 1),
    (RUNNER, "_test", 1),
    (RUNNER, "write_predictions", 1),
    (RUNNER, "_fit_calibration", 1),
    (RUNNER, "_show_hyperparameters", 1),
]


def interrupt(command: Options, folder: Path, seconds: float, rng: random.Random) -> str | None:
    """Run a command and send it a signal; describe the signal, or return None if it ended before.

    Raises:
        RuntimeError: the command ended with another status than that of the signal.
    """
    signum = rng.choice(SIGNALS)
    if rng.random() < 0.7:
        final = rng.random() < 0.25
        module, name, calls = rng.choice(FINAL_POINTS if final else TRAINING_POINTS)
        # A resumed run has fewer calls before its end.
        call = rng.randint(1, max(1, calls // rng.choice((1, 4, 8, 16))))
        point = SignalPoint(module, name, call, rng.random() < 0.5, signum)
        status = wait_for_exit(start(command, folder, point))
        where = f"{name}#{point.call}{'+' if point.after else '-'}"
    else:
        delay = rng.uniform(0, seconds) * rng.choice((0.6, 1))
        process = start(command, folder)
        while process.is_alive() and not start_marker(folder).exists():
            time.sleep(0.005)
        process.join(delay)
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signum)
        status = wait_for_exit(process)
        where = f"{delay:.2f}s"
    if status == 0:
        return None
    if status != 128 + signum:
        raise RuntimeError(
            f"exit status {status} after {signum.name} at {where}: {_last_error(folder)}"
        )
    return f"{signum.name[3:]}@{where}"


def _last_error(folder: Path) -> str:
    printed = folder / "printed"
    lines = printed.read_text(errors="replace").strip().splitlines() if printed.exists() else []
    return next((line for line in reversed(lines) if "error" in line), lines[-1] if lines else "")


def newest_run(folder: Path) -> Run | None:
    """Return the newest run in a folder that can be resumed, if any."""
    runs = run_directory.list_runs(folder / LOGS_FOLDER)
    resumable = [run for run in runs if recent_checkpoints(run)]
    return resumable[-1] if resumable else None


def run_case(case: Case, root: Path, rng: random.Random) -> Verdict:
    """Train a configuration with and without interruptions; compare the runs."""
    uninterrupted_folder, folder = root / "whole", root / "killed"
    for each in (uninterrupted_folder, folder):
        each.mkdir()
    start_time = time.perf_counter()
    status = wait_for_exit(
        start(["fit", *case.options, *(case.extended or case.length)], uninterrupted_folder)
    )
    seconds = time.perf_counter() - start_time
    uninterrupted = newest_run(uninterrupted_folder)
    if status != 0:
        rejected_early = not (uninterrupted_folder / LOGS_FOLDER).exists()
        kind = "refused" if status == 2 and rejected_early else "LOST"
        return Verdict(kind, f"exit status {status}: {_last_error(uninterrupted_folder)}", [])
    assert uninterrupted is not None
    signals: list[str] = []
    fit = ["fit", *case.options, *case.length]
    try:
        for _ in range(rng.randint(2, MAX_SIGNALS)):
            command = ["resume"] if newest_run(folder) else fit
            interruption = interrupt(command, folder, seconds, rng)
            if interruption is None:
                break  # it ended before the signal
            signals.append(interruption)
        _run_to_end(["resume"] if newest_run(folder) else fit, folder)
        if case.extended:
            _run_to_end(["resume", *case.extended], folder)
    except (RuntimeError, AssertionError) as error:
        return Verdict("LOST", str(error), signals)
    resumed = newest_run(folder)
    assert resumed is not None
    problems = list(differences(uninterrupted, resumed, bool(case.extended)))
    if list(resumed.folder.rglob(".*.tmp")):
        problems.append("partially written files are left")
    return Verdict("DIFFERENT" if problems else "equal", "; ".join(problems), signals)


def _run_to_end(command: Options, folder: Path) -> None:
    status = wait_for_exit(start(command, folder))
    if status != 0:
        raise RuntimeError(f"{command[0]}: exit status {status}: {_last_error(folder)}")


def run_cases(
    seed: int, first: int, count: int, keep: Path | None = None, more: Sequence[str] = ()
) -> Iterator[tuple[int, Case, Verdict]]:
    """Run the cases of consecutive numbers, each with `more` options."""
    for number in range(first, first + count):
        rng = random.Random(f"{seed} {number}")
        case = draw_case(rng)
        case = case._replace(options=[*case.options, *more])
        with tempfile.TemporaryDirectory(prefix="fuzz_resume_") as root:
            verdict = run_case(case, Path(root), rng)
            if keep is not None and verdict.kind in ("DIFFERENT", "LOST"):
                shutil.copytree(root, keep / f"{seed}_{number}", dirs_exist_ok=True)
        yield number, case, verdict
