"""Save the best checkpoint and the last ones, atomically."""

import math
import platform
import re
import time
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.trainer.states import TrainerFn

from mnist_lightning.errors import __version__
from mnist_lightning.files import rename_damaged, write_atomically
from mnist_lightning.runs.checkpoint import DamagedCheckpointError, read_checkpoint
from mnist_lightning.runs.recent_checkpoints import progress, read_resumable
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import say
from mnist_lightning.training.callbacks.graceful_shutdown import GracefulShutdown
from mnist_lightning.training.callbacks.safe_points import SafePointCallback
from mnist_lightning.training.logger import RunLogger, as_float

# The names of a run's own checkpoints.
RESERVED = re.compile(r"(best|last)(-\d+)?\.ckpt")

TestedEpoch = Literal["best", "last"]

# Attributes that a ModelCheckpoint does not restore; most of them decide when it saves.
_UNRESTORED = {
    "_last_global_step_saved",
    "_defer_save_until_validation",
    "_last_checkpoint_saved",
    "current_score",
}


@dataclass(eq=False)
class RunCheckpoints(SafePointCallback):
    """Saves checkpoints from which a run can be resumed exactly, and ends the run on request.

    It saves at the end of each epoch; within an epoch between two steps, every `autosave` minutes
    and before an interrupt; and at the end of training, if a limit ended it within an epoch.

    `best.ckpt` has the highest `val/accuracy` at an epoch's end, and among equal ones the lowest
    `val/loss`; without a validation, or if asked for, it is the last one. `last.ckpt` is the newest
    checkpoint. `last-1.ckpt`, `last-2.ckpt`, … are the ends of the epochs before it: a save within
    an epoch replaces an earlier one of that epoch, so that they do not depend on interrupts.

    Args:
        run: the run directory.
        config: the run's complete configuration, stored in each checkpoint.
        shutdown: the callback that receives the signals.
        keep_last: the number of newest checkpoints to keep.
        autosave: minutes between saves within an epoch; None: save only at its end.
        tested_epoch: which epoch `best.ckpt` contains, the best or the last one.
    """

    run: Run
    config: dict[str, Any]
    shutdown: GracefulShutdown
    keep_last: int = 3
    autosave: float | None = None
    tested_epoch: TestedEpoch = "best"

    def __post_init__(self) -> None:
        self.autosave_seconds = math.inf if self.autosave is None else 60 * self.autosave
        self.best: dict[str, float] = {}
        self._saved_at = 0.0
        self._saved_step = -1
        self._validated: dict[str, float] = {}
        self._validated_step = -1
        self._restored: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore values that other callbacks set in hooks that a resumed epoch does not repeat."""
        reasons = {callback.stopping_reason for callback in trainer.early_stopping_callbacks}
        if reasons - {EarlyStoppingReason.NOT_STOPPED}:
            trainer.should_stop = True
        # Set by GradientAccumulationScheduler; monitored by EarlyStopping and ModelCheckpoint.
        if self._restored:
            trainer.accumulate_grad_batches = self._restored["accumulate_grad_batches"]
            trainer.callback_metrics.update(self._restored["callback_metrics"])
            for callback in trainer.checkpoint_callbacks:
                state = self._restored["model_checkpoints"].get(callback.state_key, {})
                for name in _UNRESTORED & state.keys():
                    setattr(callback, name, state[name])
            self._restored = {}
        self._saved_at = time.monotonic()

    def on_step_completed(self, trainer: Trainer) -> None:
        """Save within the epoch if autosave is due or an end is requested, and then end the run."""
        is_due = time.monotonic() - self._saved_at >= self.autosave_seconds
        if self.shutdown.is_requested_at_step(trainer, is_due):
            self._save_last(trainer)
            self.shutdown.raise_if_requested()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the metrics and their step."""
        metrics, names = trainer.callback_metrics, ("val/accuracy", "val/loss")
        self._validated = {name: as_float(metrics[name]) for name in names if name in metrics}
        self._validated_step = trainer.global_step

    def on_epoch_completed(self, trainer: Trainer) -> None:
        """Save the epoch, also as the best one if it improved."""
        improved = self._update_best(trainer, trainer.current_epoch)
        # Save the best first: a run that is killed in between repeats this epoch with the same
        # result. In the other order last.ckpt would refer to a best.ckpt that was never written.
        if improved:
            self._flush(trainer)
            trainer.save_checkpoint(self.run.best)
        self._save_last(trainer, source=self.run.best if improved else None)
        self.shutdown.is_requested(trainer)
        self.shutdown.raise_if_requested()

    def on_training_completed(self, trainer: Trainer) -> None:
        """Save the last step if a limit ended the run within an epoch, and score its weights.

        The score is not part of `last.ckpt`: a resumed run has no score within an epoch, and a run
        that was killed before its end computes it again.
        """
        if self._saved_step != trainer.global_step:
            self._save_last(trainer)
        is_partial = not trainer.is_last_batch
        if not is_partial and self.run.best.exists():
            return
        improved = self._update_best(trainer, trainer.current_epoch + is_partial)
        if improved and trainer.is_global_zero:
            write_atomically(self.run.recent().read_bytes(), self.run.best)

    def _save_last(self, trainer: Trainer, source: Path | None = None) -> None:
        """Save `last.ckpt`; copy it from `source`, if that was just saved."""
        self._flush(trainer)
        if trainer.is_global_zero:
            self._rotate()
        if source is None:
            trainer.save_checkpoint(self.run.recent())
        elif trainer.is_global_zero:
            write_atomically(source.read_bytes(), self.run.recent())
        self._saved_at = time.monotonic()
        self._saved_step = trainer.global_step

    @staticmethod
    def _flush(trainer: Trainer) -> None:
        """Write the logs up to the step of the checkpoint."""
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.flush()

    def _update_best(self, trainer: Trainer, epoch: int) -> bool:
        """Update the best score; return whether it improved."""
        score = {"epoch": float(epoch)}
        if self._validated_step == trainer.global_step:
            score |= self._validated
        is_unrated = "val/accuracy" not in score | self.best
        improved = self.tested_epoch == "last" or is_unrated or _rank(score) > _rank(self.best)
        if improved:
            self.best = score
        return improved

    def _rotate(self) -> None:
        """Copy `last.ckpt` to `last-1.ckpt` and shift the others, unless it is within an epoch.

        Rename a damaged one. If the process is killed here, the next call completes the rotation.
        """
        recent = [self.run.recent(index) for index in range(self.keep_last)]
        if self.keep_last == 1 or not recent[0].exists():
            return
        try:
            checkpoint = read_resumable(recent[0])
        except DamagedCheckpointError as error:
            say(f"{error}; renamed the file to {rename_damaged(recent[0])}")
            return
        content = recent[0].read_bytes()
        is_copied = recent[1].is_file() and recent[1].read_bytes() == content
        if is_copied or progress(checkpoint).batches > 0:
            return
        indices = range(1, self.keep_last - 1)
        free = next((i for i in indices if not recent[i].exists()), self.keep_last - 1)
        for index in reversed(range(1, free)):
            recent[index].replace(recent[index + 1])
        # Copy, not rename: last.ckpt of the newest epoch must exist at every moment.
        write_atomically(content, recent[1])

    def state_dict(self) -> dict[str, Any]:
        """Return the best score so far, and the last validation."""
        scores = {"best": dict(self.best), "validated": dict(self._validated)}
        return scores | {"validated_step": self._validated_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a checkpoint's best score and last validation."""
        self.best = dict(state_dict["best"]) if self.run.best.exists() else {}
        self._validated = dict(state_dict["validated"])
        self._validated_step = state_dict["validated_step"]

    def on_save_checkpoint(self, trainer: Trainer, _: Any, checkpoint: dict[str, Any]) -> None:
        """Add the configuration, and trainer state that Lightning does not save."""
        checkpoint["config"] = self.config
        checkpoint["versions"] = versions()
        checkpoint["trainer"] = {
            "accumulate_grad_batches": trainer.accumulate_grad_batches,
            "callback_metrics": {
                name: value.detach().cpu().clone()
                for name, value in trainer.callback_metrics.items()
                if name.startswith(("train/", "val/"))
            },
            "logged_steps": {
                metric: step
                for logger in trainer.loggers
                if isinstance(logger, RunLogger)
                for metric, step in logger.last_steps.items()
            },
            "model_checkpoints": {
                callback.state_key: {name: getattr(callback, name) for name in sorted(_UNRESTORED)}
                for callback in trainer.checkpoint_callbacks
                if isinstance(callback, ModelCheckpoint)
            },
        }

    def on_load_checkpoint(self, trainer: Trainer, _: Any, checkpoint: dict[str, Any]) -> None:
        """Store the state to restore when training starts, and the step of the checkpoint."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._restored = checkpoint["trainer"]
            self._saved_step = checkpoint["global_step"]
            remove_later_checkpoints(trainer, self._saved_step)


def remove_later_checkpoints(trainer: Trainer, step: int) -> None:
    """Remove files that a ModelCheckpoint saved after the step from which a run is resumed.

    The run will save them again, and the names must be free.
    """
    if not trainer.is_global_zero:
        return
    callbacks = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
    # Several callbacks may save to the same folder.
    files = {file for each in callbacks for file in Path(each.dirpath or "").glob("*.ckpt")}
    for path in sorted(files):
        if RESERVED.match(path.name):
            continue
        try:
            if read_checkpoint(path)["global_step"] > step:
                path.unlink()
        except DamagedCheckpointError as error:
            say(f"{error}; renamed the file to {rename_damaged(path).name}")


@cache
def versions() -> dict[str, str]:
    """Return the versions of the packages that affect a run's results."""
    packages = ("torch", "torchvision", "lightning", "torchmetrics", "numpy")
    own = {"mnist-lightning": __version__, "python": platform.python_version()}
    return own | {name: version(name) for name in packages}


def _rank(score: dict[str, float]) -> tuple[float, float]:
    return score.get("val/accuracy", -1.0), -score.get("val/loss", 0.0)
