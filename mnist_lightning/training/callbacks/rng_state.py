"""Save and restore the states of the random generators."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from mnist_lightning import distributed
from mnist_lightning.text import say


class RandomState(Callback):
    """Saves the states of the random generators of Python, NumPy, torch and the devices.

    They are restored when training starts, after everything else that may use the generators, and
    after each validation: training does not depend on random numbers used in a validation.
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None
        self._before_validation: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the states as primitives and tensors; those of other processes as `others`."""
        first, *others = distributed.all_gather(_states())
        return first | {"others": others}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Store the states until training starts."""
        self._restored = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the states of a checkpoint; without them, seed each process differently."""
        saved = [self._restored, *self._restored.get("others", ())] if self._restored else []
        rank, processes = distributed.rank(), distributed.world_size()
        if len(saved) == processes or (saved and rank == 0):
            _restore(saved[rank])
        elif rank > 0:
            seeds = np.random.SeedSequence([torch.initial_seed(), rank])
            torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]))
        if saved and len(saved) != processes and distributed.is_rank_zero():
            say(
                f"The checkpoint is from {len(saved)} processes, this run uses {processes}: "
                "same batches, but different random numbers."
            )
        self._restored = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the states of training."""
        self._before_validation = _states()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the states of training."""
        _restore(self._before_validation)


@contextmanager
def unchanged_random_states() -> Iterator[None]:
    """Restore the states of the random generators when the block ends."""
    before = _states()
    try:
        yield
    finally:
        _restore(before)


def _states() -> dict[str, Any]:
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.array(keys)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def _restore(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy(), *rest))
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
