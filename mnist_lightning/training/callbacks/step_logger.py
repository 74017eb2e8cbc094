"""Log the metrics of individual steps."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


def log(trainer: Trainer, metrics: dict[str, Any]) -> None:
    """Write metrics of this step to the loggers immediately.

    Not by `self.log` in training: Lightning writes an epoch's means only after its checkpoint, and
    the epoch number two or three times for one step.
    """
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step=trainer.global_step)


class StepLosses(Callback):
    """Logs `train/step_loss` and `learning_rate` every `log_every_n_steps` steps.

    A callback, because callbacks run before a checkpoint is saved: the logs contain every step
    that the checkpoint counts as done.
    """

    def __init__(self) -> None:
        self._logged_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the steps after this one."""
        self._logged_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, _: Any, outputs: Any, *others: Any) -> None:
        """Log the loss if the step is due; a step may have several batches."""
        step = trainer.global_step
        interval = trainer.log_every_n_steps  # type: ignore[attr-defined] # set by a connector
        if interval and step % interval == 0 and step > self._logged_step:
            self._logged_step = step
            loss = trainer.strategy.reduce(outputs["loss"]) * trainer.accumulate_grad_batches
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            log(trainer, {"train/step_loss": loss, "learning_rate": rate})
