"""The best checkpoint of a run and its last three, never half written."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from mnist_lightning import checkpoint_file
from mnist_lightning.files import write_atomically
from mnist_lightning.run_logger import RunLogger, as_float
from mnist_lightning.runs import Run


class AtomicCheckpointIO(CheckpointIO):
    """Saves by renaming a whole file into place, and loads only what is whole."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write `checkpoint` with its digest; see `checkpoint_file`."""
        write_atomically(checkpoint_file.dump(checkpoint), Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint on the CPU; Lightning moves its parts to where they belong."""
        return checkpoint_file.read(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


class RunCheckpoints(Checkpoint):
    """Saves at each epoch's end, once everything of the epoch has been counted and logged.

    `best.ckpt` has the highest `val/accuracy`, of equal ones the lowest `val/loss`; without a
    validation it is the last one. `last.ckpt` is the newest, `last-1.ckpt` the one before.

    Args:
        run: where they go.
        config: the run's complete configuration, kept in each checkpoint.
        keep: how many of the newest to keep.
    """

    def __init__(self, run: Run, config: dict[str, Any], keep: int = 3) -> None:
        self.run = run
        self.config = config
        self.keep = keep
        self.best: dict[str, float] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the epoch, as the best one too if it is."""
        improved = self._take_score(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.flush()
        # The best first: killed in between, the resumed run does this epoch again and finds the
        # same; the other way round it would believe in a best.ckpt that was never written.
        if improved:
            trainer.save_checkpoint(self.run.best)
        self._rotate()
        if improved:
            write_atomically(self.run.best.read_bytes(), self.run.recent())
        else:
            trainer.save_checkpoint(self.run.recent())

    def _take_score(self, trainer: pl.Trainer) -> bool:
        metrics = trainer.callback_metrics
        score = {"epoch": float(trainer.current_epoch + 1)}
        for name in ("val/accuracy", "val/loss"):
            if name in metrics:
                score[name] = as_float(metrics[name])
        if "val/accuracy" in score and self.best and not _better(score, self.best):
            return False
        self.best = score
        return True

    def _rotate(self) -> None:
        for index in reversed(range(self.keep - 1)):
            if self.run.recent(index).exists():
                self.run.recent(index).replace(self.run.recent(index + 1))

    def state_dict(self) -> dict[str, Any]:
        """The best score so far: part of each checkpoint."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's best score."""
        self.best = dict(state_dict["best"])

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the configuration: a checkpoint is enough to go on from."""
        checkpoint["config"] = self.config


def _better(score: dict[str, float], best: dict[str, float]) -> bool:
    mine, theirs = ((s["val/accuracy"], -s["val/loss"]) for s in (score, best))
    return mine > theirs
