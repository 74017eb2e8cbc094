"""DigitClassifier: the loss, the metrics, the optimizer and the schedule."""

import inspect
import math
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
from mnist_lightning.training.callbacks.step_logger import StepLosses, log
from mnist_lightning.training.metrics import LossAndAccuracy
from mnist_lightning.training.optimizer_state import load_in_saved_precision

OptimizerCallable = Callable[[Iterable[nn.Parameter]], Optimizer]
LRSchedulerCallable = Callable[[Optimizer], LRScheduler | ReduceLROnPlateau]
NO_END = (
    "this learning-rate schedule spans the whole run, which has no end; set --trainer.max_epochs"
)


class DigitClassifier(LightningModule):
    """Trains a network of digits on the cross-entropy.

    Logs `train|val|test/loss|accuracy`, means over whole epochs, `train/step_loss` and
    `learning_rate`.

    Args:
        network: maps images (B, 1, 28, 28) to logits (B, C). None: `ClassicCNN()`, or what the
            checkpoint describes when one is loaded.
        optimizer: makes the optimizer from the parameters; by default Adam, updating all of
            them in one pass.
        lr_scheduler: makes the schedule from the optimizer. One with a `total_steps` argument
            that is left open (`OneCycle`, `Cosine`) is given the length of the run and takes a
            step after each batch. `ReduceLROnPlateau` watches `val/loss`, or `val/accuracy` with
            mode `max`; `train/…` where nothing is validated.
        lr_scheduler_interval: when any other schedule takes a step.
        label_smoothing: this share of each label is spread over all classes in training
            (Szegedy et al., 2016); validation and test measure the plain cross-entropy.
        channels_last: keep convolutions' weights in channels-last memory, which most processors
            work faster with.
        compile: train with `torch.compile`, which takes its time first, and pays on a GPU. The
            checkpoints are the same.
    """

    # Under Lightning's own key LightningCLI would let a checkpoint's values silently override
    # the command line's. What a checkpoint has to know of the network is under "network".
    CHECKPOINT_HYPER_PARAMS_KEY = "classifier_hyper_parameters"

    def __init__(
        self,
        network: nn.Module | None = None,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.Adam(
            parameters, lr=1e-3, fused=True
        ),
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
        label_smoothing: float = 0.0,
        channels_last: bool = True,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing is {label_smoothing}; it is a share, from 0 to 1")
        self._network_was_given = network is not None
        self.channels_last = channels_last
        self.compile_network = compile
        self.network = self._laid_out(ClassicCNN() if network is None else network)
        self.optimizer_factory = optimizer
        self.lr_scheduler_factory = lr_scheduler
        self.lr_scheduler_interval = lr_scheduler_interval
        self.train_loss = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        self.loss = nn.CrossEntropyLoss()
        self.train_metrics = LossAndAccuracy()
        self.val_metrics = LossAndAccuracy()
        self.test_metrics = LossAndAccuracy()
        self._validated_step = -1

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to (B, C) logits."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of a batch.

        Where processes share it, this one's part of it: the mean over the processes is that of
        the batch, however it was cut.
        """
        loss = self._step(batch, self.train_loss, self.train_metrics)[0]
        if distributed.count() == 1:
            return loss
        own = len(batch[1])
        total = self.trainer.strategy.reduce(torch.tensor(own, device=loss.device), reduce_op="sum")
        return loss * (own * distributed.count() / total)

    def configure_model(self) -> None:
        """Take the trainer's precision before a checkpoint is loaded, not after.

        Loaded into single precision, the weights of a run in double precision would be rounded.
        """
        if self._trainer is not None:  # load_from_checkpoint has none
            self.trainer.precision_plugin.convert_module(self)

    def on_fit_start(self) -> None:
        """Compile the network in place: it keeps its class and the names of its weights."""
        if self.compile_network:
            self.network.compile()

    def configure_callbacks(self) -> list[Callback]:
        """Bring along what logs the loss of single steps."""
        return [StepLosses()]

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the epoch's means with its last batch.

        They are written before the validation and the checkpoint that follow: what a checkpoint
        counts as done is also in the logs.
        """
        if self.trainer.is_last_batch:
            log(self.trainer, {"epoch": self.current_epoch + 1})
            self._log_epoch("train", self.train_metrics)

    def on_train_end(self) -> None:
        """Log the means of an epoch that a limit cut short.

        They are no part of a checkpoint: a run that goes on logs those of the whole epoch.
        """
        if not self.trainer.is_last_batch:
            means = self.train_metrics.compute()
            log(self.trainer, {"epoch": self.current_epoch + 1})
            log(self.trainer, {f"train/{name}": value for name, value in means.items()})

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Count a batch of the images held out; return their logits (B, C)."""
        return self._step(batch, self.loss, self.val_metrics)[1]

    def on_validation_epoch_end(self) -> None:
        """Log the means over the images held out."""
        self._log_epoch("val", self.val_metrics)
        self._validated_step = self.global_step

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Count a batch of test images; return their logits (B, C)."""
        return self._step(batch, self.loss, self.test_metrics)[1]

    def on_test_epoch_end(self) -> None:
        """Log the means over the test images."""
        self._log_epoch("test", self.test_metrics)

    def _step(
        self, batch: Batch, criterion: nn.Module, metrics: LossAndAccuracy
    ) -> tuple[Tensor, Tensor]:
        images, labels = batch
        if len(labels) == 0:  # the batch has fewer images than there are processes
            logits = self(images.new_zeros(1, *images.shape[1:]))
            return 0 * logits.sum(), logits[:0].detach()
        logits = self(images)
        if labels.ndim == 2:  # probabilities, of as many classes as the data has
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
        """Make the optimizer and its schedule."""
        optimizer = self.optimizer_factory(self.network.parameters())
        load_in_saved_precision(optimizer)
        if self.trainer.gradient_clip_val:
            # Clipped in mixed precision, gradients are unscaled before; a fused optimizer would
            # do it by itself, too late.
            optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined] # torch's sign
        spans = self.needs_run_length(self.lr_scheduler_factory)
        schedule = self.make_schedule(optimizer, self._total_steps() if spans else 0)
        if schedule is None:
            return optimizer
        interval = "step" if spans else self.lr_scheduler_interval
        return {"optimizer": optimizer, "lr_scheduler": self._schedule_config(schedule, interval)}

    def make_schedule(
        self, optimizer: Optimizer, total_steps: int
    ) -> LRScheduler | ReduceLROnPlateau | None:
        """Make the schedule of an optimizer's learning rate, if there is one.

        `total_steps`, the steps of the run, matter only where the schedule spans it.
        """
        factory = self.lr_scheduler_factory
        if factory is None or not self.needs_run_length(factory):
            return None if factory is None else factory(optimizer)
        return factory(optimizer, total_steps=total_steps)  # type: ignore[call-arg] # needs_run_length found it

    @staticmethod
    def needs_run_length(factory: LRSchedulerCallable | None) -> bool:
        """Tell whether a schedule has a `total_steps` that was left open."""
        if factory is None:
            return False
        # The command line's factories are partials of a function that takes any arguments.
        if isinstance(factory, partial) and "total_steps" in factory.keywords:
            return factory.keywords["total_steps"] is None
        parameter = inspect.signature(factory).parameters.get("total_steps")
        return parameter is not None and parameter.default is None

    @staticmethod
    def _schedule_config(schedule: LRScheduler | ReduceLROnPlateau, interval: str) -> Any:
        if not isinstance(schedule, ReduceLROnPlateau):
            return {"scheduler": schedule, "interval": interval}
        # Lightning would step it after the checkpoint of the epoch's end, and a resumed run
        # would miss that step; `on_train_epoch_end` does it before.
        return {"scheduler": schedule, "interval": "epoch", "reduce_on_plateau": False}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Let schedules by number step when Lightning says so; a plateau is watched below."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()

    def on_train_epoch_end(self) -> None:
        """Show a plateau schedule the epoch's figure; none in an epoch without a validation."""
        schedule = self.lr_schedulers()
        if not isinstance(schedule, ReduceLROnPlateau):
            return
        name = "loss" if schedule.mode == "min" else "accuracy"
        if not self._is_validated():
            schedule.step(self.trainer.callback_metrics[f"train/{name}"])
        elif self._validated_step == self.global_step:
            schedule.step(self.trainer.callback_metrics[f"val/{name}"])

    def _is_validated(self) -> bool:
        """Whether any epoch of the run is.

        Not `Trainer.num_val_batches`: it is empty until the first validation, also of a resumed
        run.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined] # set by Trainer.fit
        if isinstance(data, MNISTDataModule) and len(data.val_indices) == 0:
            return False
        return bool(self.trainer.enable_validation)

    def _total_steps(self) -> int:
        """Optimizer steps of the whole run.

        Not `Trainer.estimated_stepping_batches`: it sets up the loader early, and the state that
        a checkpoint kept of it is lost.
        """
        trainer = self.trainer
        if trainer.datamodule is None:  # type: ignore[attr-defined] # set by Trainer.fit
            return int(trainer.estimated_stepping_batches)
        limits = [] if trainer.max_steps == -1 else [trainer.max_steps]
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            limits.append(trainer.max_epochs * self._steps_per_epoch())
        if not limits:
            raise UserError(NO_END, status=2)
        return min(limits)

    def _steps_per_epoch(self) -> int:
        trainer = self.trainer
        data = MNISTDataModule.of(trainer)
        limit = trainer.limit_train_batches
        batches = data.train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        return math.ceil(batches / trainer.accumulate_grad_batches)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say how to build the network again."""
        checkpoint["network"] = registry.describe(self.network)
        if distributed.count() > 1:  # each has counted its own share of the epoch
            with self.train_metrics.sync_context():
                sums = self.train_metrics.state_dict(prefix="train_metrics.")
            checkpoint["state_dict"] |= sums

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the checkpoint's network, if this classifier was made without one.

        Raises:
            UserError: it was made with another one, or the checkpoint's cannot be built.
        """
        if not distributed.is_first():  # the first goes on counting for all
            for name in self.train_metrics.state_dict(prefix="train_metrics."):
                checkpoint["state_dict"][name] = torch.zeros_like(checkpoint["state_dict"][name])
        theirs, mine = checkpoint["network"], registry.describe(self.network)
        if theirs == mine:
            return
        if self._network_was_given:
            raise UserError(f"the checkpoint's network is {theirs}, this classifier's is {mine}")
        self.network = self._laid_out(registry.build(theirs))

    def _laid_out(self, network: nn.Module) -> nn.Module:
        return network.to(memory_format=torch.channels_last) if self.channels_last else network
