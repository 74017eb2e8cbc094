"""The Trainer of a run: typed limits, deterministic on a GPU, with the loops of this package."""

import os
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CUDAAccelerator

from mnist_lightning.training.fast_epoch_loop import FastEpochLoop
from mnist_lightning.training.fit_loop import RunFitLoop

TRAINER_DEFAULTS = {
    "devices": 1,
    # A sanity check would draw from the generators before training.
    "num_sanity_val_steps": 0,
    # The data module cuts the batches itself.
    "use_distributed_sampler": False,
}


class RunTrainer(Trainer):
    """The Trainer, with the limits typed so that `1` is one batch and `1.0` is all of them.

    Lightning spells their types `Optional[Union[int, float]]`, and `typing` keeps a cache in which
    that is the same as `Optional[Union[float, int]]`: depending on what was imported before, the
    parser tries float first, and `--trainer.limit_train_batches 1` trains on everything.

    On a GPU `deterministic` is True unless it is given: by default, convolutions there add in an
    order of their own each time, and the same seed gives other bits.
    """

    def __init__(
        self,
        *,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        overfit_batches: int | float = 0.0,
        val_check_interval: int | float | str | None = None,
        deterministic: bool | Literal["warn"] | None = None,
        **others: Any,
    ) -> None:
        super().__init__(
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            overfit_batches=overfit_batches,
            val_check_interval=val_check_interval,
            deterministic=deterministic,
            **others,
        )
        if deterministic is None and isinstance(self.accelerator, CUDAAccelerator):
            torch.use_deterministic_algorithms(True)
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        loop = RunFitLoop(self, self.min_epochs, self.max_epochs)
        loop.epoch_loop = FastEpochLoop(self, self.min_steps, self.max_steps)
        self.fit_loop = loop
