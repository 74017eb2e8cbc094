"""The exponential moving average of the weights."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mnist_lightning.runs.checkpoint import network_weights
from mnist_lightning.training.lightning_module import DigitClassifier

# Where a checkpoint keeps the weights that training goes on from.
TRAINED = "trained_weights"


class ExponentialMovingAverage(Callback):
    """Validates, saves and tests a moving mean of the network's weights in their place.

    After each step the mean becomes decay * mean + (1 - decay) * weights (Polyak and Juditsky,
    1992), the statistics of batch normalization with them. Training itself goes on from the
    weights, as if nothing were averaged; a checkpoint holds both, and resumes exactly.

    Not Lightning's callback of this kind, which copies the whole module and hands the weights of
    the last step to a test after the training.

    Args:
        decay: the share of the mean that stays at each step; the mean is over some
            1 / (1 - decay) of them. At step n it is at most (1 + n) / (10 + n), lest a short run
            be the mean of its beginning.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; it has to be from 0 to below 1")
        self.decay = decay
        self._average: dict[str, Tensor] = {}
        self._trained: dict[str, Tensor] = {}
        self._averaged_step = 0

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take over a run's mean and its weights; one that had none starts with its weights."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._average = network_weights(checkpoint)
            if TRAINED in checkpoint:
                _network(pl_module).load_state_dict(checkpoint[TRAINED])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the mean beside the weights, on their device; in half precision it would stand still.

        A step adds a thousandth to it, where bfloat16 has but 8 bits.
        """
        self._average = {
            name: self._average.get(name, weights).to(
                weights.device, _at_least_single(weights), copy=True
            )
            for name, weights in _weights(pl_module).items()
        }

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Average from here on."""
        self._averaged_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average the weights of a new step; several batches may make one."""
        step = trainer.global_step
        if step > self._averaged_step:
            self._averaged_step = step
            weights = [each.to(_at_least_single(each)) for each in _weights(pl_module).values()]
            decay = min(self.decay, (step + 1) / (step + 10))
            average = get_ema_multi_avg_fn(decay)
            average(list(self._average.values()), weights, step)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the mean."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._trained = {name: each.clone() for name, each in _weights(pl_module).items()}
            _put(self._average, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the weights."""
        if trainer.state.fn == TrainerFn.FITTING:
            _put(self._trained, pl_module)
            self._trained = {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the mean in the network."""
        _put(self._average, pl_module)
        self._average = {}

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the mean as the network's weights, and beside it those to go on from."""
        if self._average:
            checkpoint[TRAINED] = network_weights(checkpoint)
            for name, average in self._average.items():
                checkpoint["state_dict"][f"network.{name}"] = average

    @staticmethod
    def weights_to_keep(trainer: Trainer, network: nn.Module) -> dict[str, Tensor]:
        """What a checkpoint of now would hold as the network's weights."""
        weights = dict(network.state_dict())
        for callback in trainer.callbacks:  # type: ignore[attr-defined] # set by a connector
            if isinstance(callback, ExponentialMovingAverage):
                weights |= callback._average
        return weights


def _network(pl_module: LightningModule) -> nn.Module:
    assert isinstance(pl_module, DigitClassifier)
    return pl_module.network


def _put(values: Mapping[str, Tensor], pl_module: LightningModule) -> None:
    for name, weights in _weights(pl_module).items():
        weights.copy_(values[name])


def _at_least_single(weights: Tensor) -> torch.dtype:
    return torch.promote_types(weights.dtype, torch.float32)


def _weights(pl_module: LightningModule) -> dict[str, Tensor]:
    """The network's parameters and statistics; what only counts is no matter of means."""
    state = _network(pl_module).state_dict()
    return {name: weights for name, weights in state.items() if weights.is_floating_point()}
