"""Lightning's loop over the epochs, resumed from exact counters."""

from typing import Any

from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop

from mnist_lightning.training.callbacks.safe_points import safe_point_callbacks


class RunFitLoop(_FitLoop):
    """Runs epochs. If a limit is reached within an epoch, training ends between two steps.

    A checkpoint is saved only at a safe point (`callbacks.safe_points`). Its counters are the
    state of the loops, and a resumed run changes none of them. Lightning's loop always assumes
    that a run with `max_steps` stopped within an epoch, and ends a partial epoch like a complete
    one: such a run differs after a resume, and cannot be extended.
    """

    @property
    def restarting(self) -> bool:
        """Whether the checkpoint's epoch is incomplete, so that this run continues it."""
        return self._restarting

    @restarting.setter
    def restarting(self, restarting: bool) -> None:
        current: Any = self.epoch_progress.current
        unfinished = current.ready != current.processed
        _Loop.restarting.fset(self, restarting and unfinished)  # type: ignore[attr-defined]

    @property
    def skip(self) -> bool:
        """Whether there is nothing to run.

        A run that was killed after its last step still has to complete its training: to score its
        weights and to log the means of a partial epoch.
        """
        return self.max_batches == 0 if self._loaded_from_state_dict else super().skip

    def on_advance_end(self) -> None:
        """End a complete epoch; a partial one stays as it is and can be continued."""
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
