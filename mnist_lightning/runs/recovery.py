"""Rename the damaged files of a run, and restore what can be restored."""

import os
from pathlib import Path

from mnist_lightning.errors import UserError
from mnist_lightning.files import rename_damaged, write_atomically
from mnist_lightning.runs.checkpoint import DamagedCheckpointError
from mnist_lightning.runs.recent_checkpoints import progress, read_resumable, recent_checkpoints
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import say


def rename_damaged_lock(run: Run) -> None:
    """Rename a lock that is not a regular file, such as a folder or a link."""
    path = run.lock_file
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        say(f"{path} is not a regular file; renamed the file to {rename_damaged(path).name}")


def rename_damaged_config(run: Run) -> None:
    """Rename a `config.yaml` that cannot be read."""
    if not os.path.lexists(run.config):
        return
    try:
        run.read_config()
    except UserError:
        _rename(run.config, "the configuration in the checkpoint replaces it")


def rename_damaged_files(run: Run) -> None:
    """Rename the damaged files of a run before it is resumed; restore the best checkpoint.

    `metrics.csv` and the event files are recovered where they are truncated: see `logger`.
    """
    summary = run.folder / "summary.json"
    if os.path.lexists(summary) and not run.summary():
        _rename(summary, "a new one is written")
    if os.path.lexists(run.predictions) and not run.predictions.is_file():
        _rename(run.predictions, "the test writes a new one")
    if os.path.lexists(run.snapshots) and not run.snapshots.is_dir():
        _rename(run.snapshots, "a new folder is created")
    if not os.path.lexists(run.best):
        return
    try:
        read_resumable(run.best)
    except DamagedCheckpointError:
        renamed = rename_damaged(run.best)
        say(f"{run.best} is damaged; renamed the file to {renamed.name}; {_restore_best(run)}")


def _rename(path: Path, remedy: str) -> None:
    say(f"{path} is damaged; renamed the file to {rename_damaged(path).name}; {remedy}")


def _restore_best(run: Run) -> str:
    """Copy the best epoch from another checkpoint if one contains it; return the result as text."""
    for path in recent_checkpoints(run):
        try:
            checkpoint = read_resumable(path)
        except DamagedCheckpointError:
            continue
        best = checkpoint["callbacks"]["RunCheckpoints"]["best"]
        position = progress(checkpoint)
        if not position.batches and best.get("epoch") == position.epochs:
            write_atomically(path.read_bytes(), run.best)
            return f"restored from {path.name}"
    return "no other checkpoint contains this epoch; the best of the next epochs replaces it"
