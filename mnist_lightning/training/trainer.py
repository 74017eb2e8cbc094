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
    # A sanity check would use the random generators before training.
    "num_sanity_val_steps": 0,
    # The data module creates the batches itself.
    "use_distributed_sampler": False,
}


MAX_PROCESSES = 10_000  # of a run, and on a machine; Lightning makes a list of them


class RunTrainer(Trainer):
    """A Trainer with typed limits: `1` is one batch, `1.0` is all batches.

    Lightning's types are `Optional[Union[int, float]]`, and the cache of `typing` treats this as
    equal to `Optional[Union[float, int]]`. Depending on earlier imports the parser may try float
    first: then `--trainer.limit_train_batches 1` trains on all batches.

    On a GPU the default of `deterministic` is True: otherwise the order of additions in a
    convolution varies, and the same seed gives different bits.

    Args:
        limit_train_batches: batches per epoch, or a fraction of them. None: all.
        limit_val_batches: batches per validation, or a fraction of them. None: all.
        limit_test_batches: batches per test, or a fraction of them. None: all.
        overfit_batches: train and validate on the same few batches, or fraction of them.
        val_check_interval: batches between validations, or the fraction of an epoch, or a
            duration. None: validate at the end of an epoch.
        deterministic: use deterministic algorithms only; `warn`: warn where there is none. None:
            true on a GPU; on a CPU all algorithms used here are deterministic.
        others: the arguments of Lightning's Trainer.
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
        for name in ("devices", "num_nodes"):
            number = str(others.get(name))
            if number.isdecimal() and int(number) > MAX_PROCESSES:
                raise ValueError(f"{name} {number} exceeds {MAX_PROCESSES:,}")
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
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it
        loop = RunFitLoop(self, self.min_epochs, self.max_epochs)
        loop.epoch_loop = FastEpochLoop(self, self.min_steps, self.max_steps)
        self.fit_loop = loop
