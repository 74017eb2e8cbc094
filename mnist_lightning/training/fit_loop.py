"""Lightning's loop over the epochs, resumed from exact counters."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop

from mnist_lightning.training.callbacks.safe_points import safe_point_callbacks


class RunFitLoop(_FitLoop):
    """Runs epochs, and ends between two steps where a limit falls within an epoch.

    A checkpoint is made at a safe point only (`callbacks.safe_points`), so that its counters are
    the state of the loops and a resumed run changes none of them. Lightning's loop takes a run
    with `max_steps` for one that stopped within an epoch, always, and ends a part of an epoch as
    if it were a whole one: such a run differs after a resume, and cannot be extended.
    """

    def __init__(self, trainer: Trainer, min_epochs: int | None, max_epochs: int | None) -> None:
        super().__init__(trainer, min_epochs, max_epochs)

    @property
    def restarting(self) -> bool:
        """Whether an epoch of the checkpoint is to be continued."""
        return self._restarting

    @restarting.setter
    def restarting(self, restarting: bool) -> None:
        current: Any = self.epoch_progress.current
        unfinished = current.ready != current.processed
        _Loop.restarting.fset(self, restarting and unfinished)  # type: ignore[attr-defined]

    @property
    def skip(self) -> bool:
        """Whether there is nothing to run.

        A run that was killed after its last step still has to complete its training: to judge its
        weights, to log the means of a part of an epoch.
        """
        return self.max_batches == 0 if self._loaded_from_state_dict else super().skip

    def on_advance_end(self) -> None:
        """End an epoch; leave one that a limit cut short as it is, to be continued."""
        if not self.epoch_loop.batch_progress.is_last_batch:
            return
        super().on_advance_end()
        for callback in safe_point_callbacks(self.trainer):
            callback.on_epoch_completed(self.trainer)

    def on_run_end(self) -> None:
        """End the training."""
        for callback in safe_point_callbacks(self.trainer):
            callback.on_training_completed(self.trainer)
        super().on_run_end()
