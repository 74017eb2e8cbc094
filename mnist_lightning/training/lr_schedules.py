"""Learning-rate schedules that depend on the length of the run.

They take a step after each batch. `DigitClassifier` sets `total_steps`: the batches of an epoch
times the epochs.
"""

import inspect
import math
import warnings
from collections.abc import Callable
from functools import partial

from lightning.pytorch import Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.errors import UserError

LRSchedulerCallable = Callable[[Optimizer], LRScheduler | ReduceLROnPlateau]
UNBOUNDED_SCHEDULE = (
    "The learning-rate schedule needs a run of limited length: give a positive "
    "--trainer.max_epochs."
)


class OneCycle(OneCycleLR):
    """Increase to the peak, then decrease to almost 0, over the run (Smith and Topin, 2018).

    Args:
        optimizer: the optimizer.
        total_steps: steps of the run; None: set automatically.
        max_lr: the peak; None: the optimizer's learning rate.
        pct_start: the share of the run before the peak.
        div_factor: the first learning rate is the peak divided by this.
        final_div_factor: the last learning rate is the first one divided by this.
        cycle_momentum: whether the momentum, or Adam's first beta, decreases from 0.95 to 0.85
            and increases again; otherwise it does not change.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        max_lr: float | None = None,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        cycle_momentum: bool = True,
    ) -> None:
        peak = optimizer.param_groups[0]["lr"] if max_lr is None else max_lr
        super().__init__(
            optimizer,
            max_lr=float(peak),
            total_steps=total_steps,
            pct_start=pct_start,
            div_factor=div_factor,
            final_div_factor=final_div_factor,
            cycle_momentum=cycle_momentum,
        )


class Cosine(LambdaLR):
    """A linear warm-up, then half a cosine down to zero (Loshchilov and Hutter, 2017).

    Args:
        optimizer: the optimizer; its learning rate is the peak.
        total_steps: steps of the run; None: set automatically.
        warmup: the share of the run for the warm-up.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int | None = None, warmup: float = 0.0
    ) -> None:
        if total_steps is None:
            raise ValueError("Cosine needs total_steps, the number of steps of the run.")
        if not 0 <= warmup <= 1:
            raise ValueError(f"Invalid warmup {warmup}: expected a share of the run, 0 to 1.")
        warmup_steps = round(warmup * total_steps)

        def factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / warmup_steps
            progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

        super().__init__(optimizer, factor)


def take_trial_step(schedule: LRScheduler | ReduceLROnPlateau | None) -> None:
    """Take one step: some invalid arguments, such as a period of 0, fail only there."""
    with warnings.catch_warnings(action="ignore"):  # the optimizer takes no step
        if isinstance(schedule, ReduceLROnPlateau):
            schedule.step(0.0)
        elif schedule is not None:
            schedule.step()


def needs_run_length(factory: LRSchedulerCallable | None) -> bool:
    """Return whether a schedule has a `total_steps` argument that is not set."""
    if factory is None:
        return False
    # The command line's factories are partials of a function with arbitrary arguments.
    if isinstance(factory, partial) and "total_steps" in factory.keywords:
        return factory.keywords["total_steps"] is None
    parameter = inspect.signature(factory).parameters.get("total_steps")
    return parameter is not None and parameter.default is None


def total_steps(trainer: Trainer) -> int:
    """Return the number of optimizer steps of a run.

    Not `Trainer.estimated_stepping_batches`: it sets up the loader early, and the loader's state in
    the checkpoint is lost.

    Raises:
        UserError: the length of the run is not limited.
    """
    if trainer.datamodule is None:  # type: ignore[attr-defined] # set by Trainer.fit
        return int(trainer.estimated_stepping_batches)
    limits = [] if trainer.max_steps == -1 else [trainer.max_steps]
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        batches, limit = MNISTDataModule.of(trainer).train_batches, trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        steps_per_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
        limits.append(trainer.max_epochs * steps_per_epoch)
    if not limits:
        raise UserError(UNBOUNDED_SCHEDULE, status=2)
    return min(limits)
