"""Lightning's loop over an epoch, without the work that no callback needs.

Measured by `benchmarks/epoch.py`; see `docs/decisions/fast-epoch-loop.md`.
"""

import inspect
import os
from itertools import product
from typing import Any

import torch
from lightning.__version__ import version as lightning_version
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins import DoublePrecision, HalfPrecision, MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.optim import Optimizer

from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.training.callbacks.safe_points import safe_point_callbacks
from mnist_lightning.training.lightning_module import DigitClassifier

# The version of Lightning that this loop was written for; other versions use their own loop.
SUPPORTED_VERSION = "2.6."
# The hooks that the fast step skips.
_SKIPPED_HOOKS = (
    *("on_train_batch_start", "on_before_zero_grad", "on_before_backward"),
    *("on_after_backward", "on_before_optimizer_step"),
)


class FastEpochLoop(_TrainingEpochLoop):
    """Lightning's loop over an epoch's batches, with a fast step that skips unused hooks.

    Lightning calls about twenty hooks of each callback in each step, and prepares, names and
    times each call. If no callback implements them, the fast step skips them. It computes the
    same bits.
    """

    def reset(self) -> None:
        """Start an epoch, or continue that of a checkpoint with the checkpoint's counters.

        The counters are exact: a checkpoint is saved only at a safe point.
        """
        if not self._restarting:
            super().reset()
            return
        for loop in (self, self.val_loop):
            loop._restarting = False
            loop.reset_restart_stage()

    @property
    def done(self) -> bool:
        """Whether to end the epoch; not while gradients are accumulated for a step."""
        stops = self.trainer.should_stop and not self._is_training_done
        pending = stops and self.batch_progress.current.ready > 0 and self._should_accumulate()
        return not pending and super().done

    def on_run_start(self, data_fetcher: Any) -> None:
        """Find out whether this epoch can use the fast step."""
        super().on_run_start(data_fetcher)
        self._safe_point_callbacks = safe_point_callbacks(self.trainer)
        self._is_fast = self._supports_fast_step()
        trainer, hook = self.trainer, "on_train_batch_end"
        self._batch_end_callbacks = [each for each in trainer.callbacks if _implements(each, hook)]
        self._validates_at_epoch_end = (
            trainer.check_val_every_n_epoch is not None
            and getattr(trainer, "_val_check_time_interval", None) is None
            and trainer.val_check_batch == trainer.num_training_batches
        )

    def _supports_fast_step(self) -> bool:
        trainer, strategy = self.trainer, self.trainer.strategy
        precision = strategy.precision_plugin
        return (
            lightning_version.startswith(SUPPORTED_VERSION)
            # A subclass may implement more hooks.
            and type(trainer.lightning_module) is DigitClassifier
            and type(trainer.datamodule) is MNISTDataModule
            and type(strategy) is SingleDeviceStrategy
            and type(precision) in (Precision, HalfPrecision, DoublePrecision, MixedPrecision)
            and getattr(precision, "scaler", None) is None
            and type(trainer.profiler) is PassThroughProfiler
            and _steps_without_closure(strategy.optimizers[0])
            and not trainer.gradient_clip_val
            and trainer.accumulate_grad_batches == 1
            and not self.automatic_optimization._skip_backward  # set by weight averaging
            and not any(_implements(*pair) for pair in product(trainer.callbacks, _SKIPPED_HOOKS))
        )

    def advance(self, data_fetcher: Any) -> None:
        """Train on one batch."""
        if self._restarting or not self._is_fast:
            super().advance(data_fetcher)
            return
        trainer, progress = self.trainer, self.batch_progress
        model, strategy = trainer.lightning_module, trainer.strategy
        precision, optimizer = strategy.precision_plugin, strategy.optimizers[0]
        counts = self.automatic_optimization.optim_progress.optimizer

        self.val_loop.restarting = False
        batch, _, _ = next(data_fetcher)
        batch_idx = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        batch = precision.convert_input(batch)
        if batch[0].device != strategy.root_device:
            batch = strategy.batch_to_device(batch)
        progress.increment_ready()
        trainer._logger_connector.on_batch_start(batch)
        progress.increment_started()

        with precision.train_step_context():
            loss = model.training_step(batch, batch_idx)
        counts.zero_grad.increment_ready()
        counts.zero_grad.increment_started()
        optimizer.zero_grad()
        counts.zero_grad.increment_completed()
        torch.autograd.backward(loss)
        counts.step.increment_ready()
        optimizer.step()
        counts.step.increment_completed()
        progress.increment_processed()
        if trainer.lr_scheduler_configs:
            self.update_lr_schedulers("step", update_plateau_schedulers=False)
            if self._num_ready_batches_reached():
                self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        outputs = {"loss": loss.detach()}
        model._current_fx_name = "on_train_batch_end"  # callbacks may call `self.log`
        for callback in self._batch_end_callbacks:
            callback.on_train_batch_end(trainer, model, outputs, batch, batch_idx)
        model.on_train_batch_end(outputs, batch, batch_idx)
        model._current_fx_name = None
        logged = any(True for _ in self._results.valid_items())
        if logged:
            trainer._logger_connector.on_batch_end()
        progress.increment_completed()
        if logged:
            trainer._logger_connector.update_train_step_metrics()

    def on_advance_end(self, data_fetcher: Any) -> None:
        """Validate if a validation is due."""
        trainer = self.trainer
        if (
            self._is_fast
            and self._validates_at_epoch_end
            and not self.batch_progress.is_last_batch
            and not self._skip_next_val
            and not trainer.should_stop
            and not trainer.received_sigterm
        ):
            self._batches_that_stepped += 1
        else:
            super().on_advance_end(data_fetcher)
        if not self.batch_progress.is_last_batch and not self._should_accumulate():
            for callback in self._safe_point_callbacks:
                callback.on_step_completed(trainer)


def _steps_without_closure(optimizer: Optimizer) -> bool:
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is None


def _implements(callback: Callback, hook: str) -> bool:
    return getattr(getattr(callback, hook), "__func__", None) is not getattr(Callback, hook)


def disable_nvml_check() -> None:
    """Avoid a search for NVIDIA's library in each optimizer step on a machine without a GPU.

    Lightning sets this variable: torch then detects GPUs through the library, not the driver, and
    processes can be forked afterwards. Without a GPU torch repeats the search, 0.3 ms each time.
    """
    if not torch.cuda.is_available():
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
