"""Save and restore the states of the random generators."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from mnist_lightning import distributed
from mnist_lightning.text import say


class RandomState(Callback):
    """Keeps the states of Python's, NumPy's, torch's and the devices' generators.

    They are restored when training starts, after everything else that may draw from them, and
    after each validation: whatever a network draws there, no training bit hangs on it.
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None
        self._before_validation: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """The states, as primitives and tensors; those of further processes under `others`."""
        own, *others = distributed.gathered(self._states())
        return own | {"others": others}

    @staticmethod
    def _states() -> dict[str, Any]:
        name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
        return {
            "python": random.getstate(),
            "numpy": (name, torch.from_numpy(np.array(keys)), position, has_gauss, gauss),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if _cuda_is_used() else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the states until training starts."""
        self._restored = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore what a checkpoint brought; without one, each process draws for itself."""
        kept = [self._restored, *self._restored.get("others", ())] if self._restored else []
        if len(kept) == distributed.count() or (kept and distributed.rank() == 0):
            _restore(kept[distributed.rank()])
        elif distributed.rank() > 0:
            mixed = np.random.SeedSequence([torch.initial_seed(), distributed.rank()])
            torch.manual_seed(int(mixed.generate_state(1, np.uint64)[0]))
        if kept and len(kept) != distributed.count() and distributed.is_first():
            say(
                f"the checkpoint is of a run in {len(kept)}, this one is in {distributed.count()}: "
                "it sees the same batches, and draws other random numbers"
            )
        self._restored = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the states of training."""
        self._before_validation = self._states()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take them up again."""
        _restore(self._before_validation)


def _restore(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy(), *rest))
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def _cuda_is_used() -> bool:
    used: bool = torch.cuda.is_initialized()
    return used
