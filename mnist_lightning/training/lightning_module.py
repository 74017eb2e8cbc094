"""DigitClassifier: the loss, the metrics, the optimizer and the schedule."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mnist_lightning import distributed
from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.data.loader import Batch
from mnist_lightning.errors import UserError
from mnist_lightning.networks import registry
from mnist_lightning.networks.classic_cnn import ClassicCNN
from mnist_lightning.training import lr_schedules
from mnist_lightning.training.callbacks.step_logger import StepLosses, log
from mnist_lightning.training.distillation import TEACHER_KEY, Teacher, read_teacher
from mnist_lightning.training.metrics import LossAndAccuracy
from mnist_lightning.training.optimizer_state import load_in_saved_precision

OptimizerCallable = Callable[[Iterable[nn.Parameter]], Optimizer]
DEFAULT_OPTIMIZER = partial(torch.optim.Adam, lr=1e-3, fused=True)


def network_of(pl_module: LightningModule) -> nn.Module:
    """Return the network of a `DigitClassifier`, as a callback gets it."""
    assert isinstance(pl_module, DigitClassifier)
    return pl_module.network


class DigitClassifier(LightningModule):
    """Trains a digit classifier with the cross-entropy loss.

    Logs `train|val|test/loss|accuracy` (means over an epoch), `train/step_loss` and
    `learning_rate`.

    Args:
        network: maps images (B, 1, 28, 28) to logits (B, C). None: `ClassicCNN()`, or the network
            of a loaded checkpoint.
        optimizer: creates the optimizer from the parameters. Default: fused Adam.
        lr_scheduler: creates the schedule from the optimizer. A schedule whose `total_steps`
            argument is not set (`OneCycle`, `Cosine`) gets the length of the run and takes a
            step after each batch. `ReduceLROnPlateau` monitors `val/loss`, or `val/accuracy` with
            mode `max`; without a validation set `train/…`.
        lr_scheduler_interval: when any other schedule takes a step.
        label_smoothing: the share of each label that is spread over all classes in training
            (Szegedy et al., 2016). Validation and test use the plain cross-entropy.
        channels_last: store convolution weights in channels-last memory; faster on most
            processors.
        compile: train with `torch.compile`. Compiling takes time at the start, and is worth it on
            a GPU. The checkpoints are the same.

    Attributes:
        teacher: its probabilities replace the labels of the training images. None: no teacher.
        lr: the learning rate that replaces the optimizer's own; `Tuner.lr_find` sets it. None: the
            optimizer's own.
    """

    # With Lightning's own key, LightningCLI would silently override the command line by a
    # checkpoint's values. The description of the network is under the key "network".
    CHECKPOINT_HYPER_PARAMS_KEY = "classifier_hyper_parameters"

    def __init__(
        self,
        network: nn.Module | None = None,
        optimizer: OptimizerCallable = DEFAULT_OPTIMIZER,
        lr_scheduler: lr_schedules.LRSchedulerCallable | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
        label_smoothing: float = 0.0,
        channels_last: bool = True,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"Invalid label_smoothing {label_smoothing}: expected 0 to 1.")
        self._network_was_given = network is not None
        self.channels_last = channels_last
        self.compile_network = compile
        self.network = self._with_memory_format(ClassicCNN() if network is None else network)
        self.optimizer_factory = optimizer
        self.lr_scheduler_factory = lr_scheduler
        self.lr_scheduler_interval = lr_scheduler_interval
        self.train_loss = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        self.loss = nn.CrossEntropyLoss()
        self.train_metrics = LossAndAccuracy()
        self.val_metrics = LossAndAccuracy()
        self.test_metrics = LossAndAccuracy()
        self._validated_step = -1
        self.teacher: Teacher | None = None
        self.lr: float | None = None
        # Only arguments of the constructor: `load_from_checkpoint` may pass them all to it.
        self.save_hyperparameters(
            {
                "lr_scheduler_interval": lr_scheduler_interval,
                "label_smoothing": label_smoothing,
                "channels_last": channels_last,
                "compile": compile,
            }
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to (B, C) logits."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of a batch.

        If several processes share the batch, return the weighted loss of this process's part: the
        mean over the processes is the loss of the batch, whatever the sizes of the parts.
        """
        if self.teacher is not None and len(batch[1]) > 0:
            batch = batch[0], self.teacher.targets(*batch)
        loss = self._step(batch, self.train_loss, self.train_metrics)[0]
        if distributed.world_size() == 1:
            return loss
        own = len(batch[1])
        total = self.trainer.strategy.reduce(torch.tensor(own, device=loss.device), reduce_op="sum")
        return loss * (own * distributed.world_size() / total)

    def configure_model(self) -> None:
        """Convert to the trainer's precision before a checkpoint is loaded.

        Otherwise double-precision weights would be loaded into single precision, and rounded.
        """
        if self._trainer is not None:  # load_from_checkpoint has none
            self.trainer.precision_plugin.convert_module(self)

    def on_fit_start(self) -> None:
        """Compile the network in place: its class and the names of its weights do not change."""
        if self.compile_network:
            self.network.compile()

    def configure_callbacks(self) -> list[Callback]:
        """Return the callback that logs the loss of single steps."""
        return [StepLosses()]

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the epoch's means after its last batch.

        They are written before the validation and the checkpoint that follow: the logs contain
        everything that a checkpoint counts as done.
        """
        if self.trainer.is_last_batch:
            log(self.trainer, {"epoch": self.current_epoch + 1})
            self._log_epoch("train", self.train_metrics)

    def on_train_end(self) -> None:
        """Log the means of a partial epoch, if a limit ended the training within an epoch.

        They are not part of a checkpoint: a resumed run logs those of the complete epoch.
        """
        if not self.trainer.is_last_batch:
            means = {f"train/{name}": mean for name, mean in self.train_metrics.compute().items()}
            log(self.trainer, {"epoch": self.current_epoch + 1, **means})

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Evaluate a batch of the validation set; return its logits (B, C)."""
        return self._step(batch, self.loss, self.val_metrics)[1]

    def on_validation_epoch_end(self) -> None:
        """Log the means over the validation set."""
        self._log_epoch("val", self.val_metrics)
        self._validated_step = self.global_step

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Evaluate a batch of the test set; return its logits (B, C)."""
        return self._step(batch, self.loss, self.test_metrics)[1]

    def on_test_epoch_end(self) -> None:
        """Log the means over the test set."""
        self._log_epoch("test", self.test_metrics)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Return the probabilities (B, C) for a batch: images, or images and labels."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        logits: Tensor = self(images)
        return logits.softmax(dim=1)

    def _step(
        self, batch: Batch, criterion: nn.Module, metrics: LossAndAccuracy
    ) -> tuple[Tensor, Tensor]:
        images, labels = batch
        if len(labels) == 0:  # the batch has fewer images than there are processes
            logits = self(images.new_zeros(1, *images.shape[1:]))
            return 0 * logits.sum(), logits[:0].detach()
        logits = self(images)
        if labels.ndim == 2:  # probabilities of the classes of the data; the network may have more
            labels = functional.pad(labels, (0, logits.shape[1] - labels.shape[1]))
        loss = criterion(logits, labels)
        metrics.update(loss.detach(), logits.detach(), labels)
        return loss, logits

    def _log_epoch(self, stage: str, metrics: LossAndAccuracy) -> None:
        means = {f"{stage}/{name}": value for name, value in metrics.compute().items()}
        metrics.reset()
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        if not self.trainer.sanity_checking:
            self.log_dict(means, logger=not fitting, on_step=False, on_epoch=True, batch_size=1)
            if fitting:
                log(self.trainer, means)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create the optimizer and its schedule."""
        optimizer = self.optimizer_factory(self.network.parameters())
        if self.lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = self.lr
        load_in_saved_precision(optimizer)
        if self.trainer.gradient_clip_val:
            # In mixed precision, gradients must be unscaled before they are clipped; a fused
            # optimizer would unscale them too late, in its step.
            optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined] # torch's flag
        spans = self.schedule_needs_run_length
        schedule = self.make_schedule(
            optimizer, lr_schedules.total_steps(self.trainer) if spans else 0
        )
        if schedule is None:
            return optimizer
        interval = "step" if spans else self.lr_scheduler_interval
        config: Any = {"scheduler": schedule, "interval": interval}
        if isinstance(schedule, ReduceLROnPlateau):
            # Lightning would step it after the checkpoint at the end of the epoch, and a resumed
            # run would miss that step; `on_train_epoch_end` steps it before.
            config |= {"interval": "epoch", "reduce_on_plateau": False}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def make_schedule(
        self, optimizer: Optimizer, total_steps: int
    ) -> LRScheduler | ReduceLROnPlateau | None:
        """Create the learning-rate schedule of an optimizer; None if there is none.

        `total_steps`, the steps of the run, is used only by a schedule that depends on it.
        """
        factory = self.lr_scheduler_factory
        if factory is None or not self.schedule_needs_run_length:
            return None if factory is None else factory(optimizer)
        return factory(optimizer, total_steps=total_steps)  # type: ignore[call-arg] # checked above

    @property
    def schedule_needs_run_length(self) -> bool:
        """Whether the learning-rate schedule depends on the length of the run."""
        return lr_schedules.needs_run_length(self.lr_scheduler_factory)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a schedule, except ReduceLROnPlateau: `on_train_epoch_end` steps it."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()

    def on_train_epoch_end(self) -> None:
        """Step ReduceLROnPlateau by the epoch's metric, unless the epoch had no validation."""
        schedule = self.lr_schedulers()
        if not isinstance(schedule, ReduceLROnPlateau):
            return
        name = "loss" if schedule.mode == "min" else "accuracy"
        data = self.trainer.datamodule  # type: ignore[attr-defined] # set by Trainer.fit
        is_split = not isinstance(data, MNISTDataModule) or len(data.val_indices) > 0
        # Not `Trainer.num_val_batches`: it is empty until the first validation of a process.
        if not (is_split and self.trainer.enable_validation):
            schedule.step(self.trainer.callback_metrics[f"train/{name}"])
        elif self._validated_step == self.global_step:
            schedule.step(self.trainer.callback_metrics[f"val/{name}"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the descriptions of the networks, and the sums of other processes."""
        checkpoint["network"] = registry.describe(self.network)
        if self.teacher is not None:
            checkpoint[TEACHER_KEY] = self.teacher.description()
        self.train_metrics.save_processes(checkpoint, "train_metrics")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the checkpoint's teacher, and its network if this classifier has none yet.

        Raises:
            UserError: it was created with another network, or the checkpoint's cannot be built.
        """
        self.train_metrics.select_process(checkpoint, "train_metrics")
        self.teacher = self.teacher or read_teacher(checkpoint)
        saved = checkpoint["network"]
        if registry.is_described_by(self.network, saved):
            return
        if self._network_was_given:
            current = registry.describe(self.network)
            raise UserError(f"Network mismatch: the checkpoint contains {saved}, not {current}.")
        self.network = self._with_memory_format(registry.build(saved))

    def _with_memory_format(self, network: nn.Module) -> nn.Module:
        return network.to(memory_format=torch.channels_last) if self.channels_last else network
