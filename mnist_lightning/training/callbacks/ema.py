"""The exponential moving average of the weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mnist_lightning.runs.checkpoint import network_weights
from mnist_lightning.training.lightning_module import network_of

# The key in a checkpoint for the weights from which training resumes.
TRAINED_KEY = "trained_weights"


class ExponentialMovingAverage(Callback):
    """Validates, saves and tests the exponential moving average of the weights.

    After each step the average becomes decay * average + (1 - decay) * weights (Polyak and
    Juditsky, 1992). It includes the statistics of batch normalization. Training itself uses the
    weights and does not change. A checkpoint contains both, and resumes exactly.

    Differs from Lightning's callback, which copies the complete module, and after training tests
    the weights of the last step.

    Args:
        decay: the weight of the average in each step. The average is over about 1 / (1 - decay)
            steps. At step n decay is at most (1 + n) / (10 + n), so that the first steps of a
            short run do not dominate.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"Invalid decay {decay}: expected at least 0 and below 1.")
        self.decay = decay
        self._average: dict[str, Tensor] = {}
        self._trained: dict[str, Tensor] = {}
        self._averaged_step = 0

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Load the average and the weights; a checkpoint without an average has only weights."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._average = network_weights(checkpoint)
            if TRAINED_KEY in checkpoint:
                network_of(pl_module).load_state_dict(checkpoint[TRAINED_KEY])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Create the average on the weights' device, at least in single precision.

        A step changes it by about a thousandth, which the 8 bits of bfloat16 would round off.
        """
        self._average = {
            name: self._average.get(name, weights).to(
                weights.device, _at_least_single(weights), copy=True
            )
            for name, weights in _weights(pl_module).items()
        }

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Average the steps after this one."""
        self._averaged_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Update the average after a new step; a step may have several batches."""
        step = trainer.global_step
        if step > self._averaged_step:
            self._averaged_step = step
            weights = [w.to(_at_least_single(w)) for w in _weights(pl_module).values()]
            update = get_ema_multi_avg_fn(min(self.decay, (step + 1) / (step + 10)))
            update(list(self._average.values()), weights, step)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the network."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._trained = {name: weight.clone() for name, weight in _weights(pl_module).items()}
            _load(self._average, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the trained weights back into the network."""
        if trainer.state.fn == TrainerFn.FITTING:
            _load(self._trained, pl_module)
            self._trained = {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the network."""
        _load(self._average, pl_module)
        self._average = {}

    def on_save_checkpoint(self, trainer: Trainer, _: Any, checkpoint: dict[str, Any]) -> None:
        """Save the average as the network's weights, and the trained weights in addition."""
        if self._average:
            checkpoint[TRAINED_KEY] = network_weights(checkpoint)
            for name, average in self._average.items():
                checkpoint["state_dict"][f"network.{name}"] = average

    @staticmethod
    def weights_to_export(trainer: Trainer, network: nn.Module) -> dict[str, Tensor]:
        """Return the network's weights as a checkpoint would save them now."""
        return dict(network.state_dict()) | _average_of(trainer)

    @staticmethod
    @contextmanager
    def evaluated_weights(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
        """Put the average, if there is one, into the network until the block ends."""
        average = _average_of(trainer)
        if not average:
            yield
            return
        trained = {name: weights.clone() for name, weights in _weights(pl_module).items()}
        _load(average, pl_module)
        try:
            yield
        finally:
            _load(trained, pl_module)


def _average_of(trainer: Trainer) -> dict[str, Tensor]:
    """Return the average of a trainer's callback; empty without one, and after the training."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined] # set by a connector
        if isinstance(callback, ExponentialMovingAverage):
            return callback._average
    return {}


def _load(values: Mapping[str, Tensor], pl_module: LightningModule) -> None:
    for name, weights in _weights(pl_module).items():
        weights.copy_(values[name])


def _at_least_single(weights: Tensor) -> torch.dtype:
    return torch.promote_types(weights.dtype, torch.float32)


def _weights(pl_module: LightningModule) -> dict[str, Tensor]:
    """Return the network's parameters and statistics, without integer counters."""
    state = network_of(pl_module).state_dict()
    return {name: weights for name, weights in state.items() if weights.is_floating_point()}
