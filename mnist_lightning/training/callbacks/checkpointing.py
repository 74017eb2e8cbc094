"""Save the best checkpoint and the last ones, atomically."""

import math
import platform
import re
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.trainer.states import TrainerFn

from mnist_lightning.errors import UserError, __version__
from mnist_lightning.files import move_aside, write_atomically
from mnist_lightning.runs.checkpoint import (
    DamagedCheckpointError,
    dump_checkpoint,
    parse_checkpoint,
    read_checkpoint,
)
from mnist_lightning.runs.resumable import progress, validate_checkpoint
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import say
from mnist_lightning.training.callbacks.graceful_shutdown import GracefulShutdown
from mnist_lightning.training.callbacks.safe_points import SafePointCallback
from mnist_lightning.training.logger import RunLogger, as_float

# The names of a run's own checkpoints.
RESERVED = re.compile(r"(best|last)(-\d+)?\.ckpt")

# What a ModelCheckpoint does not restore; most of it decides when it saves.
_LEFT_OUT = {
    "_last_global_step_saved",
    "_defer_save_until_validation",
    "_last_checkpoint_saved",
    "current_score",
}


class AtomicCheckpointIO(CheckpointIO):
    """Saves by renaming a whole file into place, and loads only what is whole.

    Args:
        folder: the only place to save to and to delete from, whatever the state of a callback
            says that a checkpoint brought; None: any.
        sign: as the user's own; not if the run came from elsewhere.
    """

    def __init__(self, folder: Path | None = None, sign: bool = True) -> None:
        self.folder = folder
        self.sign = sign

    def _refuse_outside(self, path: Path) -> None:
        folder = self.folder
        if folder is not None and not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"a checkpoint at {path} is outside of the run directory {folder}")

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write `checkpoint` with its digest, once the reader has accepted it.

        Raises:
            DamagedCheckpointError: it could not be read back: a callback keeps something else
                than primitives and tensors, say.
        """
        self._refuse_outside(Path(path))
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        content = dump_checkpoint(checkpoint, self.sign)
        parse_checkpoint(content, Path(path))
        write_atomically(content, Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint on the CPU; Lightning moves its parts to where they belong."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        self._refuse_outside(Path(path))
        Path(path).unlink(missing_ok=True)


class RunCheckpoints(SafePointCallback):
    """Saves where a run can be resumed exactly, and ends it when asked to.

    At each epoch's end; within an epoch between two steps, every `autosave` minutes and before an
    interrupt; and where a limit ends the training within an epoch.

    `best.ckpt` has the highest `val/accuracy`, of equal ones the lowest `val/loss`, judged by the
    validation at an epoch's end; without any it is the last one. `last.ckpt` is the newest.
    `last-1.ckpt`, `last-2.ckpt`, … are the ends of the epochs before it: a save within an epoch
    replaces an earlier one of that epoch, so that they do not depend on interrupts.

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
        interrupt: GracefulShutdown,
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
        self._saved_step = -1
        self._validated: dict[str, float] = {}
        self._validated_step = -1
        self._restored: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore what other callbacks set in hooks that a resumed epoch does not repeat."""
        reasons = {callback.stopping_reason for callback in trainer.early_stopping_callbacks}
        if reasons - {EarlyStoppingReason.NOT_STOPPED}:
            trainer.should_stop = True
        # Set by GradientAccumulationScheduler; monitored by EarlyStopping and ModelCheckpoint.
        if self._restored:
            trainer.accumulate_grad_batches = self._restored["accumulate_grad_batches"]
            trainer.callback_metrics.update(self._restored["callback_metrics"])
            for callback in trainer.checkpoint_callbacks:
                state = self._restored["model_checkpoints"].get(callback.state_key, {})
                for name in _LEFT_OUT & state.keys():
                    setattr(callback, name, state[name])
            self._restored = {}
        self._saved_at = time.monotonic()

    def on_step_completed(self, trainer: Trainer) -> None:
        """Save within the epoch if it is time to, and end the run if it is asked to."""
        due = time.monotonic() - self._saved_at >= self.autosave_seconds
        if self.interrupt.heard_at_step(trainer, due):
            self._save_last(trainer)
            self.interrupt.end_if_asked()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the figures, and of which weights they are."""
        names = ("val/accuracy", "val/loss")
        metrics = trainer.callback_metrics
        self._validated = {name: as_float(metrics[name]) for name in names if name in metrics}
        self._validated_step = trainer.global_step

    def on_epoch_completed(self, trainer: Trainer) -> None:
        """Save the epoch, as the best one too if it is."""
        improved = self._take_score(trainer, trainer.current_epoch)
        # The best first: killed in between, the resumed run does this epoch again and finds the
        # same; the other way round it would believe in a best.ckpt that was never written.
        if improved:
            self._flush(trainer)
            trainer.save_checkpoint(self.run.best)
        self._save_last(trainer, copied=self.run.best if improved else None)
        self.interrupt.heard(trainer)
        self.interrupt.end_if_asked()

    def on_training_completed(self, trainer: Trainer) -> None:
        """Save the last step of a run that a limit ended within an epoch, and judge its weights.

        The judgment is no part of `last.ckpt`: a run that goes on has none within an epoch, and
        one that was killed before its end judges again.
        """
        if self._saved_step != trainer.global_step:
            self._save_last(trainer)
        cut = not trainer.is_last_batch
        if not cut and self.run.best.exists():
            return
        improved = self._take_score(trainer, trainer.current_epoch + cut)
        if improved and trainer.is_global_zero:
            write_atomically(self.run.recent().read_bytes(), self.run.best)

    def _save_last(self, trainer: Trainer, copied: Path | None = None) -> None:
        self._flush(trainer)
        if trainer.is_global_zero:
            self._rotate()
        if copied is None:
            trainer.save_checkpoint(self.run.recent())
        elif trainer.is_global_zero:  # the same was just saved there
            write_atomically(copied.read_bytes(), self.run.recent())
        self._saved_at = time.monotonic()
        self._saved_step = trainer.global_step

    @staticmethod
    def _flush(trainer: Trainer) -> None:
        """Bring to the logs what a checkpoint counts as done."""
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.flush()

    def _take_score(self, trainer: Trainer, epoch: int) -> bool:
        score = {"epoch": float(epoch)}
        if self._validated_step == trainer.global_step:
            score |= self._validated
        improved = _merit(score) > _merit(self.best) or "val/accuracy" not in score | self.best
        if improved:
            self.best = score
        return improved

    def _rotate(self) -> None:
        """Keep the last checkpoint under the next name, unless it is from within an epoch.

        Killed anywhere in here, the next call completes it and changes nothing else.
        """
        last = self.run.recent()
        if self.keep == 1 or not last.exists() or not self._is_end_of_epoch(last):
            return
        content = last.read_bytes()
        if self.run.recent(1).is_file() and self.run.recent(1).read_bytes() == content:
            return
        names = range(1, self.keep)
        free = next(
            (index for index in names if not self.run.recent(index).exists()), self.keep - 1
        )
        for index in reversed(range(1, free)):
            self.run.recent(index).replace(self.run.recent(index + 1))
        # Copied, not renamed: at no moment is the newest epoch without its last.ckpt.
        write_atomically(content, self.run.recent(1))

    @staticmethod
    def _is_end_of_epoch(path: Path) -> bool:
        """Tell whether to keep a checkpoint; move aside one that was damaged since it was saved."""
        try:
            checkpoint = read_checkpoint(path)
            validate_checkpoint(checkpoint)
        except DamagedCheckpointError as error:
            say(f"{error}; kept as {move_aside(path)}")
            return False
        return progress(checkpoint).batches == 0

    def state_dict(self) -> dict[str, Any]:
        """The best score so far, and the last validation: part of each checkpoint."""
        return {
            "best": dict(self.best),
            "validated": dict(self._validated),
            "validated_step": self._validated_step,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's best score."""
        self.best = dict(state_dict["best"]) if self.run.best.exists() else {}
        self._validated = dict(state_dict["validated"])
        self._validated_step = state_dict["validated_step"]

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the configuration, and the state of the trainer that Lightning leaves out."""
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
                callback.state_key: {name: getattr(callback, name) for name in sorted(_LEFT_OUT)}
                for callback in trainer.checkpoint_callbacks
                if isinstance(callback, ModelCheckpoint)
            },
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember what to restore when the training starts, and which step is saved."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._restored = checkpoint["trainer"]
            self._saved_step = checkpoint["global_step"]
            remove_later_checkpoints(trainer, self._saved_step)


def remove_later_checkpoints(trainer: Trainer, step: int) -> None:
    """Remove what a ModelCheckpoint saved after the step that a run is resumed from.

    The run will save it again, and would find its name taken.
    """
    if not trainer.is_global_zero:
        return
    for callback in trainer.checkpoint_callbacks:
        folder = Path(callback.dirpath or "") if isinstance(callback, ModelCheckpoint) else None
        for path in folder.glob("*.ckpt") if folder is not None else ():
            if RESERVED.match(path.name):
                continue
            try:
                later = read_checkpoint(path)["global_step"] > step
            except DamagedCheckpointError as error:
                say(f"{error}; kept as {move_aside(path).name}")
                continue
            if later:
                path.unlink()


@cache
def versions() -> dict[str, str]:
    """The versions of what a run's bits hang on."""
    packages = ("torch", "torchvision", "lightning", "torchmetrics", "numpy")
    return {
        "mnist-lightning": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def _merit(score: dict[str, float]) -> tuple[float, float]:
    return score.get("val/accuracy", -1.0), -score.get("val/loss", 0.0)
