"""Rename the damaged files of a run, and restore what can be restored."""

import os
from pathlib import Path

from mnist_lightning.errors import UserError
from mnist_lightning.files import move_aside, write_atomically
from mnist_lightning.runs.checkpoint import DamagedCheckpointError, read_checkpoint
from mnist_lightning.runs.resumable import progress, recent_checkpoints, validate_checkpoint
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import say


def move_damaged_config(run: Run) -> None:
    """Rename a `config.yaml` that cannot be read."""
    if not os.path.lexists(run.config):
        return
    try:
        run.read_config()
    except UserError:
        _move(run.config, "the configuration in the checkpoint replaces it")


def move_damaged_files(run: Run) -> None:
    """Rename the damaged files of a run that is about to be resumed; restore the best checkpoint.

    `metrics.csv` and the event files are recovered where they are cut back: see `run_logger`.
    """
    summary = run.folder / "summary.json"
    if os.path.lexists(summary) and not run.summary():
        _move(summary, "it is written anew")
    if os.path.lexists(run.predictions) and not run.predictions.is_file():
        _move(run.predictions, "the test writes it anew")
    if not os.path.lexists(run.best):
        return
    try:
        validate_checkpoint(read_checkpoint(run.best))
    except DamagedCheckpointError:
        _move(run.best, "")
        say(f"{run.best}: {_restored_best(run)}")


def _move(path: Path, remedy: str) -> None:
    aside = move_aside(path)
    say(f"{path} is damaged; kept as {aside.name}" + (f"; {remedy}" if remedy else ""))


def _restored_best(run: Run) -> str:
    """Copy the best epoch from another checkpoint, if one has it; say what became of it."""
    for path in recent_checkpoints(run):
        try:
            checkpoint = read_checkpoint(path)
            validate_checkpoint(checkpoint)
        except DamagedCheckpointError:
            continue
        best = checkpoint["callbacks"]["RunCheckpoints"]["best"]
        done = progress(checkpoint)
        if not done.batches and best.get("epoch") == done.epochs:
            write_atomically(path.read_bytes(), run.best)
            return f"restored from {path.name}"
    return "no other checkpoint has that epoch; the best epoch from here on takes its place"
