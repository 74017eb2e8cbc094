"""The moments at which a run can be saved: between two steps or epochs."""

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint


class SafePointCallback(Checkpoint):
    """A callback that `fit_loop.RunFitLoop` calls between steps and between epochs.

    Lightning's own hooks run before counters, schedules and other callbacks are updated. A
    checkpoint from such a hook is incomplete. Lightning guesses the rest when it loads it, and
    guesses wrong in a run with `max_steps`.
    """

    def on_step_completed(self, trainer: Trainer) -> None:
        """Run after a step (not the last of its epoch) and the validation after it, if any."""

    def on_epoch_completed(self, trainer: Trainer) -> None:
        """Run after the last hook of an epoch."""

    def on_training_completed(self, trainer: Trainer) -> None:
        """Run after the last step, before any `on_train_end`."""


def safe_point_callbacks(trainer: Trainer) -> list[SafePointCallback]:
    """Return the trainer's callbacks of this class."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined] # set by a connector
    return [callback for callback in callbacks if isinstance(callback, SafePointCallback)]
