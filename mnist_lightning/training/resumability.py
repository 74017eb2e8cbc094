"""Which runs can be resumed exactly: refused before training, or marked unverified."""

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from mnist_lightning.errors import UserError
from mnist_lightning.training.callbacks.checkpointing import RESERVED
from mnist_lightning.training.callbacks.ema import ExponentialMovingAverage
from mnist_lightning.training.registry import (
    AUGMENTATIONS,
    CALLBACKS,
    NETWORKS,
    OPTIMIZERS,
    SCHEDULES,
    Components,
)

# Callbacks of Lightning that a run cannot be resumed with, why, and what to use.
_REFUSED: dict[type[Callback], tuple[str, str]] = {
    callbacks.StochasticWeightAveraging: (
        "its averaged weights are in no checkpoint",
        "use ExponentialMovingAverage",
    ),
    callbacks.WeightAveraging: (
        "it leaves the weights of the last step to the test",
        "use ExponentialMovingAverage",
    ),
    callbacks.ModelPruning: (
        "it renames the weights, and a checkpoint has its masks no more",
        "train without it and prune the exported weights with torch.nn.utils.prune",
    ),
    callbacks.BaseFinetuning: (
        "it adds parameters to the optimizer as the run goes, and needs a `backbone`",
        "start from other weights with --init_from RUN",
    ),
    callbacks.BatchSizeFinder: (
        "it trains before the run, outside of its checkpoints",
        "compare sizes with the command sweep",
    ),
    callbacks.LearningRateFinder: (
        "it trains before the run, outside of its checkpoints",
        "compare learning rates with the command sweep",
    ),
    callbacks.OnExceptionCheckpoint: (
        "it makes a new run start from the checkpoint of another one",
        "leave it out: a run saves itself, within an epoch too with --autosave MINUTES",
    ),
    callbacks.SpikeDetection: (
        "the losses that it compares are in no checkpoint",
        "use EarlyStopping with check_finite or divergence_threshold",
    ),
    callbacks.ProgressBar: (
        "a run shows its own progress bar",
        "leave it out, or switch the bar off with --trainer.enable_progress_bar false",
    ),
}


def refuse_callbacks(found: Iterable[Callback], accumulated: int) -> None:
    """Refuse what a run could not be resumed with, before anything is trained.

    Args:
        found: the callbacks of the configuration.
        accumulated: its `accumulate_grad_batches`.

    Raises:
        UserError: there is such a callback.
    """
    found = list(found)
    if sum(isinstance(callback, ExponentialMovingAverage) for callback in found) > 1:
        raise UserError("--trainer.callbacks: ExponentialMovingAverage twice; give one", status=2)
    for callback in found:
        if isinstance(callback, callbacks.GradientAccumulationScheduler) and accumulated != 1:
            raise UserError(
                "both --trainer.callbacks GradientAccumulationScheduler and "
                f"--trainer.accumulate_grad_batches {accumulated}: give one",
                status=2,
            )
        for kind, (reason, alternative) in _REFUSED.items():
            if isinstance(callback, kind):
                name = type(callback).__name__
                raise UserError(f"--trainer.callbacks {name}: {reason}; {alternative}", status=2)
        if isinstance(callback, ModelCheckpoint):
            _refuse_a_clash(callback)


def _refuse_a_clash(callback: ModelCheckpoint) -> None:
    clashes = {
        "save_last": "last.ckpt is the run's own, saved at each epoch's end"
        if callback.save_last
        else "",
        "save_on_exception": "the run saves itself before it ends"
        if callback.save_on_exception
        else "",
        "dirpath": "other runs would find its files" if callback.dirpath is not None else "",
        "filename": "best.ckpt and last.ckpt are the run's own"
        if RESERVED.match(f"{callback.filename}.ckpt")
        else "",
    }
    for option, reason in clashes.items():
        if reason:
            raise UserError(
                f"--trainer.callbacks ModelCheckpoint: {reason}; leave {option} out", status=2
            )


def why_not_loadable(found: Iterable[Callback], states: dict[str, Any]) -> str | None:
    """Compare the states of callbacks in a checkpoint with what such callbacks save."""
    for callback in found:
        if not type(callback).__module__.startswith(("lightning.", "mnist_lightning.")):
            continue
        fresh, saved = callback.state_dict(), states.get(callback.state_key, {})
        name = f"callbacks.{type(callback).__name__}"
        if not isinstance(saved, dict):
            return f"{name} is no state of a callback"
        for key, value in fresh.items():
            if key not in saved:
                return f"{name} has no {key}"
            if isinstance(value, int | str | dict) and not isinstance(saved[key], type(value)):
                return f"{name}.{key} is {type(saved[key]).__name__}"
    return None


def unverified_parts(config: dict[str, Any]) -> list[str]:
    """Name what a configuration has that an exact resume was not tested with."""
    model, trainer = config["model"], config["trainer"]
    found = _foreign(model["network"], NETWORKS)
    found += _foreign(model["optimizer"], OPTIMIZERS)
    found += _foreign(model["lr_scheduler"], SCHEDULES)
    found += _foreign(config["data"]["augment"], AUGMENTATIONS)
    found += _foreign(trainer["callbacks"], CALLBACKS | _CHECKPOINT)
    found += _foreign(trainer["plugins"], {})
    if trainer["max_time"] is not None:
        found.append("--trainer.max_time")
    on_gpu = trainer["accelerator"] in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if on_gpu and trainer["deterministic"] in (False, "warn"):
        found.append(f"--trainer.deterministic {str(trainer['deterministic']).lower()} on a GPU")
    if on_gpu and trainer["benchmark"]:  # it chooses algorithms by how long they took
        found.append("--trainer.benchmark true on a GPU")
    return found


_CHECKPOINT: Components = {
    f"{module}.ModelCheckpoint": ModelCheckpoint
    for module in ("lightning.pytorch.callbacks", ModelCheckpoint.__module__)
}


def _foreign(part: Any, known: Components) -> list[str]:
    """The class paths in a part of a configuration that are not known."""
    parts = [each for each in (part if isinstance(part, list) else [part]) if each is not None]
    paths = [each["class_path"] if isinstance(each, dict) else str(each) for each in parts]
    return [path for path in paths if path not in known]
