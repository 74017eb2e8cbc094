"""Upgrade checkpoints of former versions."""

from contextlib import suppress
from typing import Any


def upgrade_checkpoint(checkpoint: dict[str, Any]) -> None:
    """Complete a checkpoint of version 0.1.0 in place; leave others, and malformed ones, alone.

    It was saved in hooks of Lightning, before the last counters of a step or of an epoch, and had
    nothing of the trainer's own state.
    """
    if "config" not in checkpoint or "trainer" in checkpoint:
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
    else:  # where a limit cut the epoch short: nothing resumes there
        return
    for kind in ("total", "current"):
        counters[kind]["completed"] = counters[kind]["processed"]
