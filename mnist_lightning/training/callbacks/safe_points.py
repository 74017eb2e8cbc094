"""The moments at which a run can be saved: between two steps or epochs."""

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint


class SafePointCallback(Checkpoint):
    """A callback that `fit_loop.RunFitLoop` calls between the steps and between the epochs.

    Lightning's own hooks run in the middle of its bookkeeping: counters are incremented, schedules
    are stepped and other callbacks are called after them. What is saved in a hook has to be
    completed by guesses when it is loaded, and the guesses of a run with `max_steps` are wrong.
    """

    def on_step_completed(self, trainer: Trainer) -> None:
        """Follow a step that is not the last of its epoch, and the validation after it, if any."""

    def on_epoch_completed(self, trainer: Trainer) -> None:
        """Follow the last hook of an epoch."""

    def on_training_completed(self, trainer: Trainer) -> None:
        """Follow the last step, before any `on_train_end`."""


def safe_point_callbacks(trainer: Trainer) -> list[SafePointCallback]:
    """Return the trainer's callbacks of this kind."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined] # set by a connector
    return [callback for callback in callbacks if isinstance(callback, SafePointCallback)]
