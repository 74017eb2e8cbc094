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
        Path(path).parent.mkdir(parents=True, exist_ok=True)
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

    `best.ckpt` has the highest `val/accuracy`, of equal ones the lowest `val/loss`, judged by the
    validation at an epoch's end; without any it is the last one. `last.ckpt` is the newest,
    `last-1.ckpt` the one before.

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
        self._validated: dict[str, float] = {}
        self._validated_step = -1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the figures, and of which weights they are."""
        names = ("val/accuracy", "val/loss")
        metrics = trainer.callback_metrics
        self._validated = {name: as_float(metrics[name]) for name in names if name in metrics}
        self._validated_step = trainer.global_step

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
        score = {"epoch": float(trainer.current_epoch + 1)}
        if self._validated_step == trainer.global_step:
            score |= self._validated
        improved = _merit(score) > _merit(self.best) or "val/accuracy" not in score | self.best
        if improved:
            self.best = score
        return improved

    def _rotate(self) -> None:
        for index in reversed(range(1, self.keep - 1)):
            if self.run.recent(index).exists():
                self.run.recent(index).replace(self.run.recent(index + 1))
        # Copied, not renamed: at no moment is the newest epoch without its last.ckpt.
        if self.keep > 1 and self.run.recent().exists():
            write_atomically(self.run.recent().read_bytes(), self.run.recent(1))

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


def _merit(score: dict[str, float]) -> tuple[float, float]:
    return score.get("val/accuracy", -1.0), -score.get("val/loss", 0.0)
