"""Upgrade checkpoints of former versions."""

from contextlib import suppress
from typing import Any

# The modules of version 0.1.0, the current modules, and their classes.
_MODULES = {
    "callbacks.averaging": ("training.callbacks.ema", "ExponentialMovingAverage"),
    "callbacks.weights": ("training.callbacks.state_dict_export", "WeightsFile"),
    "data.augment": ("data.augmentations", "Cutout Deformation Mixup NoDigit Noise StrokeWidth"),
    "schedules": ("training.lr_schedules", "Cosine OneCycle"),
}
# The class paths in files of version 0.1.0, and the current paths.
FORMER_NAMES = {
    f"mnist_lightning.{former}.{name}": f"mnist_lightning.{current}.{name}"
    for former, (current, names) in _MODULES.items()
    for name in names.split()
}


def upgrade_names(config: Any) -> Any:
    """Return a configuration with the current class paths."""
    if isinstance(config, dict):
        return {name: upgrade_names(value) for name, value in config.items()}
    if isinstance(config, list):
        return [upgrade_names(value) for value in config]
    return FORMER_NAMES.get(config, config) if isinstance(config, str) else config


def upgrade_checkpoint(checkpoint: dict[str, Any]) -> None:
    """Upgrade a checkpoint to the current format, in place; do not change malformed ones.

    Version 0.1.0 saved checkpoints in Lightning's hooks, before the last counters of a step or an
    epoch were updated, and without the state of the trainer.
    """
    if "config" not in checkpoint:
        return
    checkpoint["config"] = upgrade_names(checkpoint["config"])
    if "trainer" in checkpoint:
        return
    checkpoint["trainer"] = {
        "accumulate_grad_batches": 1,
        "callback_metrics": {},
        "logged_steps": None,
        "model_checkpoints": {},
    }
    with suppress(KeyError, TypeError, AttributeError, IndexError, RuntimeError, ValueError):
        batches = checkpoint["config"]["trainer"]["accumulate_grad_batches"]
        checkpoint["trainer"]["accumulate_grad_batches"] = batches
        checkpoint["callbacks"]["RunCheckpoints"] |= {"validated": {}, "validated_step": -1}
        _complete_counters(checkpoint)


def _complete_counters(checkpoint: dict[str, Any]) -> None:
    loop = checkpoint["loops"]["fit_loop"]
    epochs, batches = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
    if epochs["current"]["processed"] < epochs["current"]["started"]:  # within an epoch
        counters = batches
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"]
    elif batches["is_last_batch"]:
        counters = epochs
        checkpoint["epoch"] = epochs["current"]["processed"]
    else:  # a limit ended the epoch early: it cannot be resumed
        return
    for kind in ("total", "current"):
        counters[kind]["completed"] = counters[kind]["processed"]
