"""The best checkpoint of a run and its last three, never half written."""

import math
import platform
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from mnist_lightning import __version__
from mnist_lightning.callbacks.interrupt import Interrupt
from mnist_lightning.files import write_atomically
from mnist_lightning.run_logger import RunLogger, as_float
from mnist_lightning.runs.checkpoint import dump_checkpoint, read_checkpoint
from mnist_lightning.runs.run_directory import Run


class AtomicCheckpointIO(CheckpointIO):
    """Saves by renaming a whole file into place, and loads only what is whole."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write `checkpoint` with its digest; see `runs.checkpoint`."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(dump_checkpoint(checkpoint), Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint on the CPU; Lightning moves its parts to where they belong."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


class RunCheckpoints(Checkpoint):
    """Saves where a run can go on from as if nothing had happened, and ends it when asked to.

    At each epoch's end, once everything of it has been counted and logged; and within an epoch
    between two steps, every `autosave` minutes, at the last step of a run that ends there, and
    before an interrupt.

    `best.ckpt` has the highest `val/accuracy`, of equal ones the lowest `val/loss`, judged by the
    validation at an epoch's end; without any it is the last one. `last.ckpt` is the newest,
    `last-1.ckpt` the one before.

    Args:
        run: where they go.
        config: the run's complete configuration, kept in each checkpoint.
        interrupt: who says whether to end.
        keep: how many of the newest to keep.
        autosave: minutes after which to save within an epoch; None: only at its end.
    """

    def __init__(
        self,
        run: Run,
        config: dict[str, Any],
        interrupt: Interrupt,
        keep: int = 3,
        autosave: float | None = None,
    ) -> None:
        self.run = run
        self.config = config
        self.interrupt = interrupt
        self.keep = keep
        self.autosave_seconds = math.inf if autosave is None else 60 * autosave
        self.best: dict[str, float] = {}
        self._saved_at = 0.0
        self._validated: dict[str, float] = {}
        self._validated_step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once where the checkpoint is that of a run which was stopped early."""
        reasons = {callback.stopping_reason for callback in trainer.early_stopping_callbacks}
        if reasons - {EarlyStoppingReason.NOT_STOPPED}:
            trainer.should_stop = True
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within the epoch if it is time to, and end the run if it is asked to."""
        if not between_steps(trainer, batch_idx):
            return
        due = time.monotonic() - self._saved_at >= self.autosave_seconds
        ends = trainer.should_stop or trainer.global_step == trainer.max_steps
        if self.interrupt.heard_at_step(trainer, due) or ends:
            self._save_last(trainer)
            self.interrupt.end_if_asked()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the figures, and of which weights they are."""
        names = ("val/accuracy", "val/loss")
        metrics = trainer.callback_metrics
        self._validated = {name: as_float(metrics[name]) for name in names if name in metrics}
        self._validated_step = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch, as the best one too if it is."""
        improved = self._take_score(trainer)
        # The best first: killed in between, the resumed run does this epoch again and finds the
        # same; the other way round it would believe in a best.ckpt that was never written.
        if improved:
            self._flush(trainer)
            trainer.save_checkpoint(self.run.best)
        # An epoch that a limit cut short is no place to go on from; its last step is, and saved.
        if trainer.is_last_batch:
            self._save_last(trainer, copied=self.run.best if improved else None)
        self.interrupt.heard(trainer)
        self.interrupt.end_if_asked()

    def _save_last(self, trainer: Trainer, copied: Path | None = None) -> None:
        self._flush(trainer)
        if trainer.is_global_zero:
            self._rotate()
        if copied is None:
            trainer.save_checkpoint(self.run.recent())
        elif trainer.is_global_zero:  # the same was just saved there
            write_atomically(copied.read_bytes(), self.run.recent())
        self._saved_at = time.monotonic()

    @staticmethod
    def _flush(trainer: Trainer) -> None:
        """What a checkpoint counts as done is in the logs."""
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.flush()

    def _take_score(self, trainer: Trainer) -> bool:
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
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the configuration: a checkpoint is enough to go on from."""
        checkpoint["config"] = self.config
        checkpoint["versions"] = versions()


@cache
def versions() -> dict[str, str]:
    """The versions of what a run's bits hang on."""
    packages = ("torch", "torchvision", "lightning", "torchmetrics", "numpy")
    return {
        "mnist-lightning": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def between_steps(trainer: Trainer, batch_idx: int) -> bool:
    """Tell whether a run can be saved after this batch to go on exactly: nothing is half done.

    Not after an epoch's last batch, for the epoch's end follows; not before a validation, which a
    resumed run would leave out; and not while gradients are being accumulated.
    """
    done = batch_idx + 1
    if trainer.is_last_batch or done % trainer.accumulate_grad_batches:
        return False
    interval = trainer.val_check_batch
    if not interval or math.isinf(interval):
        return True
    if trainer.check_val_every_n_epoch is None:  # then the interval goes on over the epochs
        done = trainer.fit_loop.total_batch_idx + 1
    return bool(done % interval)


def _merit(score: dict[str, float]) -> tuple[float, float]:
    return score.get("val/accuracy", -1.0), -score.get("val/loss", 0.0)
