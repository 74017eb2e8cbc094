"""Check which runs can be resumed exactly: reject others, or mark them as unverified."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from mnist_lightning.errors import UserError
from mnist_lightning.training import registry
from mnist_lightning.training.callbacks.checkpointing import RESERVED
from mnist_lightning.training.callbacks.ema import ExponentialMovingAverage

# Lightning callbacks that prevent an exact resume: the reason and the alternative.
_UNSUPPORTED: dict[type[Callback], str] = {
    callbacks.StochasticWeightAveraging: "its averaged weights are not in the checkpoints. "
    "Use ExponentialMovingAverage.",
    callbacks.WeightAveraging: "the test would use the weights of the last step, not the average. "
    "Use ExponentialMovingAverage.",
    callbacks.ModelPruning: "it renames the weights, and its masks are not in the checkpoints. "
    "Train without it and prune the exported weights with torch.nn.utils.prune.",
    callbacks.BaseFinetuning: "it adds parameters to the optimizer during the run, and needs a "
    "`backbone`. Start from other weights with --init_from RUN.",
    callbacks.BatchSizeFinder: "it trains before the run, and no checkpoint contains that. "
    "Compare batch sizes with the command sweep.",
    callbacks.LearningRateFinder: "it trains before the run, and no checkpoint contains that. "
    "Compare learning rates with the command sweep.",
    callbacks.OnExceptionCheckpoint: "a new run would start from the checkpoint of another run. "
    "Remove the callback, and set --autosave MINUTES to save checkpoints within an epoch.",
    callbacks.SpikeDetection: "the losses that it compares are not in the checkpoints. "
    "Use EarlyStopping with check_finite or divergence_threshold.",
}


def check_callbacks(configured: Sequence[Callback], accumulated: int) -> None:
    """Reject callbacks that prevent an exact resume, before training.

    Args:
        configured: the callbacks of the configuration.
        accumulated: its `accumulate_grad_batches`.

    Raises:
        UserError: there is such a callback.
    """
    if sum(isinstance(callback, ExponentialMovingAverage) for callback in configured) > 1:
        problem = "--trainer.callbacks: ExponentialMovingAverage is given twice"
        raise UserError(f"{problem}; give it once.", status=2)
    for callback in configured:
        if isinstance(callback, callbacks.GradientAccumulationScheduler) and accumulated != 1:
            raise UserError(
                "Both --trainer.callbacks GradientAccumulationScheduler and "
                f"--trainer.accumulate_grad_batches {accumulated}: give only one.",
                status=2,
            )
        for unsupported, reason in _UNSUPPORTED.items():
            if isinstance(callback, unsupported):
                name = type(callback).__name__
                raise UserError(f"--trainer.callbacks {name}: {reason}", status=2)
        if isinstance(callback, ModelCheckpoint):
            _check_model_checkpoint(callback)


def _check_model_checkpoint(callback: ModelCheckpoint) -> None:
    is_reserved = RESERVED.match(f"{callback.filename}.ckpt")
    is_wide = re.search(r":[^}]*\d{3}", str(callback.filename))  # the width in {epoch:03d}
    for option, conflicts, reason in [
        ("save_last", callback.save_last, "the run saves last.ckpt itself, after each epoch"),
        ("save_on_exception", callback.save_on_exception, "the run saves last.ckpt before it ends"),
        ("dirpath", callback.dirpath is not None, "other runs would find the files of this run"),
        ("filename", is_reserved, "best.ckpt and last.ckpt are reserved names"),
        ("filename", is_wide, "a number in it has more than 99 characters"),
    ]:
        if conflicts:
            problem = f"--trainer.callbacks ModelCheckpoint: {reason}. Remove {option}."
            raise UserError(problem, status=2)


def callback_state_error(configured: Sequence[Callback], states: dict[str, Any]) -> str | None:
    """Compare a checkpoint's callback states with new ones; return the difference, or None."""
    for callback in configured:
        if not type(callback).__module__.startswith(("lightning.", "mnist_lightning.")):
            continue
        fresh, saved = callback.state_dict(), states.get(callback.state_key, {})
        name = f"callbacks.{type(callback).__name__}"
        if not isinstance(saved, dict):
            return f"{name} is not a callback state"
        for key, value in fresh.items():
            if key not in saved:
                return f"{name} has no {key}"
            if isinstance(value, int | str | dict) and not isinstance(saved[key], type(value)):
                return f"{name}.{key} is {type(saved[key]).__name__}"
    return None


def unverified_parts(config: dict[str, Any]) -> list[str]:
    """Return the parts of a configuration for which an exact resume was not tested."""
    model, trainer = config["model"], config["trainer"]
    checkpoint = registry.exported(callbacks, "ModelCheckpoint")
    parts = _unknown_classes(model["network"], registry.NETWORKS)
    parts += _unknown_classes(model["optimizer"], registry.OPTIMIZERS)
    parts += _unknown_classes(model["lr_scheduler"], registry.SCHEDULES)
    parts += _unknown_classes(config["data"]["augment"], registry.AUGMENTATIONS)
    parts += _unknown_classes(trainer["callbacks"], registry.CALLBACKS | checkpoint)
    parts += _unknown_classes(trainer["plugins"], {})
    if trainer["max_time"] is not None:
        parts.append("--trainer.max_time")
    on_gpu = trainer["accelerator"] in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if on_gpu and trainer["deterministic"] in (False, "warn"):
        parts.append(f"--trainer.deterministic {str(trainer['deterministic']).lower()} on a GPU")
    if on_gpu and trainer["benchmark"]:  # it selects algorithms by measured time
        parts.append("--trainer.benchmark true on a GPU")
    return parts


def _unknown_classes(value: Any, known: registry.Components) -> list[str]:
    """Return the class paths in a value of the configuration that are not known."""
    specs = [spec for spec in (value if isinstance(value, list) else [value]) if spec is not None]
    paths = [spec["class_path"] if isinstance(spec, dict) else str(spec) for spec in specs]
    return [path for path in paths if path not in known]
