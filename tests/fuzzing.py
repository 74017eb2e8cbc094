"""Runs of random configurations, interrupted at random, resumed and compared."""

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
from tests.processes import SignalPoint, start, start_marker, wait_for_exit
from tests.random_cases import Case, Options, draw
from tests.run_differences import differences

MOST_SIGNALS = 8
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


class Verdict(NamedTuple):
    """What became of a case: `equal`, `refused`, `DIFFERENT` or `LOST`, and why."""

    kind: str
    reason: str
    signals: list[str]


CHECKPOINTS = "mnist_lightning.training.callbacks.checkpointing"
TRAINING = "mnist_lightning.training.runner"
# Calls in which a process sends itself a signal, and how often a run comes there at most.
TRAINING_PLACES = [
    ("mnist_lightning.training.lightning_module", "DigitClassifier.training_step", 30),
    ("mnist_lightning.training.lightning_module", "DigitClassifier.validation_step", 4),
    ("mnist_lightning.training.lightning_module", "DigitClassifier.on_validation_epoch_end", 4),
    ("mnist_lightning.training.lightning_module", "DigitClassifier.on_train_batch_end", 30),
    ("mnist_lightning.training.lightning_module", "DigitClassifier.on_train_epoch_end", 3),
    (CHECKPOINTS, "RunCheckpoints.on_step_completed", 30),
    (CHECKPOINTS, "RunCheckpoints.on_epoch_completed", 4),
    (CHECKPOINTS, "RunCheckpoints._save_last", 5),
    (CHECKPOINTS, "RunCheckpoints._rotate", 5),
    ("mnist_lightning.training.checkpoint_io", "AtomicCheckpointIO.save_checkpoint", 6),
    (CHECKPOINTS, "write_atomically", 6),
    ("mnist_lightning.training.logger", "RunLogger.flush", 8),
    ("mnist_lightning.runs.metrics_csv", "write_atomically", 4),
    ("mnist_lightning.training.callbacks.run_summary", "RunSummary._write", 6),
    ("os", "fsync", 40),
    (TRAINING, "_build_session", 1),
    (CHECKPOINTS, "remove_later_checkpoints", 1),
    ("mnist_lightning.cli.resume", "truncate_logs", 1),
]
CLOSING_PLACES = [
    ("mnist_lightning.training.lightning_module", "DigitClassifier.on_train_end", 1),
    ("mnist_lightning.training.lightning_module", "DigitClassifier.test_step", 2),
    (CHECKPOINTS, "RunCheckpoints.on_training_completed", 1),
    ("mnist_lightning.training.logger", "RunLogger.close", 1),
    ("mnist_lightning.training.callbacks.run_summary", "RunSummary.finish", 1),
    (TRAINING, "_test", 1),
    (TRAINING, "write_predictions", 1),
    (TRAINING, "_fit_temperature", 1),
    (TRAINING, "_show_hyperparameters", 1),
]


def interrupt(command: Options, folder: Path, seconds: float, chance: random.Random) -> str | None:
    """Run a command and send it a signal; say which and where, or None if it ended before.

    Raises:
        RuntimeError: it ended in another way than by the signal.
    """
    sent = chance.choice(SIGNALS)
    if chance.random() < 0.7:
        closing = chance.random() < 0.25
        module, name, calls = chance.choice(CLOSING_PLACES if closing else TRAINING_PLACES)
        # A resumed run has fewer of them before its end.
        call = chance.randint(1, max(1, calls // chance.choice((1, 4, 8, 16))))
        place = SignalPoint(module, name, call, chance.random() < 0.5, sent)
        status = wait_for_exit(start(command, folder, place))
        where = f"{name}#{place.call}{'+' if place.after else '-'}"
    else:
        moment = chance.uniform(0, seconds) * chance.choice((0.6, 1))
        process = start(command, folder)
        while process.is_alive() and not start_marker(folder).exists():
            time.sleep(0.005)
        process.join(moment)
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, sent)
        status = wait_for_exit(process)
        where = f"{moment:.2f}s"
    if status == 0:
        return None
    if status != 128 + sent:
        raise RuntimeError(f"exit status {status} after {sent.name} at {where}: {_said(folder)}")
    return f"{sent.name[3:]}@{where}"


def _said(folder: Path) -> str:
    printed = folder / "printed"
    lines = printed.read_text(errors="replace").strip().splitlines() if printed.exists() else []
    return next((line for line in reversed(lines) if "error" in line), lines[-1] if lines else "")


def newest(folder: Path) -> Run | None:
    """The newest run in a folder that can be resumed."""
    runs = run_directory.list_runs(folder / LOGS_FOLDER)
    found = [run for run in runs if recent_checkpoints(run)]
    return found[-1] if found else None


def try_case(case: Case, place: Path, chance: random.Random) -> Verdict:
    """Train a configuration with and without interruptions; compare what they leave."""
    whole_folder, folder = place / "whole", place / "killed"
    for each in (whole_folder, folder):
        each.mkdir()
    began = time.perf_counter()
    status = wait_for_exit(
        start(["fit", *case.options, *(case.extended or case.length)], whole_folder)
    )
    seconds = time.perf_counter() - began
    whole = newest(whole_folder)
    if status != 0:
        before = not (whole_folder / LOGS_FOLDER).exists()
        kind = "refused" if status == 2 and before else "LOST"
        return Verdict(kind, f"exit status {status}: {_said(whole_folder)}", [])
    assert whole is not None
    signals: list[str] = []
    fit = ["fit", *case.options, *case.length]
    try:
        for _ in range(chance.randint(2, MOST_SIGNALS)):
            command = ["resume"] if newest(folder) else fit
            done = interrupt(command, folder, seconds, chance)
            if done is None:
                break  # it came to its end
            signals.append(done)
        _finish(["resume"] if newest(folder) else fit, folder)
        if case.extended:
            _finish(["resume", *case.extended], folder)
    except (RuntimeError, AssertionError) as error:
        return Verdict("LOST", str(error), signals)
    other = newest(folder)
    assert other is not None
    found = list(differences(whole, other, bool(case.extended)))
    if list(other.folder.rglob(".*.tmp")):
        found.append("half-written files are left")
    return Verdict("DIFFERENT" if found else "equal", "; ".join(found), signals)


def _finish(command: Options, folder: Path) -> None:
    status = wait_for_exit(start(command, folder))
    if status != 0:
        raise RuntimeError(f"{command[0]}: exit status {status}: {_said(folder)}")


def run_cases(
    seed: int, first: int, count: int, keep: Path | None = None, more: Sequence[str] = ()
) -> Iterator[tuple[int, Case, Verdict]]:
    """Try cases of consecutive numbers, each with `more` options."""
    for number in range(first, first + count):
        chance = random.Random(f"{seed} {number}")
        case = draw(chance)
        case = case._replace(options=[*case.options, *more])
        with tempfile.TemporaryDirectory(prefix="fuzz_resume_") as place:
            verdict = try_case(case, Path(place), chance)
            if keep is not None and verdict.kind in ("DIFFERENT", "LOST"):
                shutil.copytree(place, keep / f"{seed}_{number}", dirs_exist_ok=True)
        yield number, case, verdict
