"""Find the checkpoints from which a run can be resumed."""

import random
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mnist_lightning.errors import UserError
from mnist_lightning.files import rename_damaged
from mnist_lightning.runs import checkpoint as checkpoint_file
from mnist_lightning.runs.checkpoint import DamagedCheckpointError, network_weights, require
from mnist_lightning.runs.run_directory import Run, entries
from mnist_lightning.text import say

MAX_ATTEMPTS = 10  # checkpoints of a run to try


class Progress(NamedTuple):
    """The position of a checkpoint in its run.

    Attributes:
        epochs: number of complete epochs.
        batches: number of completed batches of the next epoch.
    """

    epochs: int
    batches: int

    def __str__(self) -> str:
        if self.batches:
            return f"batch {self.batches} of epoch {self.epochs + 1}"
        return f"epoch {self.epochs}"


def progress(checkpoint: dict[str, Any]) -> Progress:
    """Read the position of a checkpoint in its run.

    Raises:
        DamagedCheckpointError: it was not saved between two steps or epochs, so that it cannot be
            resumed.
    """
    loop = checkpoint["loops"]["fit_loop"]
    epochs, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]
    steps = loop["epoch_loop.state_dict"]["_batches_that_stepped"]
    if (
        epochs["completed"] == epochs["processed"]
        and batches["current"]["completed"] == batches["current"]["ready"]
        and steps == checkpoint["global_step"]
    ):
        if epochs["ready"] == epochs["completed"]:
            return Progress(epochs["completed"], 0)
        if not batches["is_last_batch"] and epochs["ready"] == epochs["completed"] + 1:
            return Progress(epochs["completed"], batches["current"]["ready"])
    raise DamagedCheckpointError(
        "this checkpoint was saved in the middle of a step, by another callback or an earlier "
        "version; resume from last.ckpt in the same folder"
    )


def validate_checkpoint(checkpoint: dict[str, Any]) -> None:
    """Check that a run can be resumed from a loaded checkpoint.

    Raises:
        DamagedCheckpointError: a part is missing, a part does not have the format of `fit`, or its
            counters contradict each other.
    """
    checkpoint_file.check_format(checkpoint, _FORMAT, "checkpoint")
    require(bool(network_weights(checkpoint)), "state_dict has no weights of a network")
    parts = checkpoint.get("train_metrics", [])  # of several processes
    checkpoint_file.check_format(parts, [{str: Tensor}], "train_metrics")
    _check_trainer(checkpoint["trainer"])
    with _malformed("loops"):
        _check_counters(checkpoint, checkpoint["loops"]["fit_loop"])
    _check_optimizer(checkpoint)
    best = checkpoint["callbacks"]["RunCheckpoints"]["best"]
    has_epoch = not best or 0 <= best.get("epoch", -1) < 2**31
    require(has_epoch, "callbacks.RunCheckpoints.best has no epoch")
    accuracy = best.get("val/accuracy", 0.0)
    require(0 <= accuracy <= 1 or isnan(accuracy), "the best val/accuracy is not between 0 and 1")
    with _malformed("callbacks.RandomState"):
        _check_random_states(checkpoint["callbacks"]["RandomState"])


def read_resumable(path: Path) -> dict[str, Any]:
    """Read a checkpoint from which a run can be resumed.

    Raises:
        DamagedCheckpointError: see `read_checkpoint` and `validate_checkpoint`.
    """
    checkpoint = checkpoint_file.read_checkpoint(path)
    validate_checkpoint(checkpoint)
    return checkpoint


_SCORES = {"validated_step": int, "best": {str: float}, "validated": {str: float}}
_GROUPS = [{"params": [int], "lr": float | int | Tensor}]
_FORMAT = checkpoint_file.PARTS | {
    "network": {"class_path": str},
    "trainer": {
        "accumulate_grad_batches": int,
        "logged_steps": dict | None,
        "model_checkpoints": {str: dict},
        "callback_metrics": {str: Tensor},
    },
    "optimizer_states": [{"param_groups": _GROUPS, "state": {int: dict}}],
    "lr_schedulers": [dict],
    "callbacks": {"RunCheckpoints": _SCORES, "RandomState": dict},
}

# The names of Lightning's counters. It stores all other names as attributes, too.
_COUNTERS = {"total", "current", "ready", "started", "processed", "completed", "is_last_batch"}
_COUNTERS |= {"optimizer", "step", "zero_grad", "_batches_that_stepped"}
MAX_COUNT = 2**53


@contextmanager
def _malformed(name: str) -> Iterator[None]:
    """Report errors from reading a part of a checkpoint as damage of this part."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise DamagedCheckpointError(f"{name}: {reason}") from None


def _check_trainer(trainer: dict[str, Any]) -> None:
    accumulated = trainer["accumulate_grad_batches"]
    require(accumulated >= 1, "trainer.accumulate_grad_batches is below 1")
    _check_counts(trainer["logged_steps"] or {}, "trainer.logged_steps")
    for name, value in trainer["callback_metrics"].items():
        require(value.numel() == 1, f"trainer.callback_metrics[{name!r}] is not a number")


def _check_counters(checkpoint: dict[str, Any], loop: dict[str, Any]) -> None:
    for part, counters in loop.items():
        if part != "state_dict":
            _check_counts(counters, f"loops.{part}")
            names = _names(counters)
            require(names <= _COUNTERS, f"loops.{part} has unknown names")
    position, count, epoch = progress(checkpoint), checkpoint["global_step"], checkpoint["epoch"]
    optimizer = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    steps = optimizer["step"]["total"]["completed"]
    (loader,) = loop["state_dict"]["combined_loader"]
    loader = {"epoch": loader["epoch"], "given": loader["given"]}
    _check_counts(loader, "loader")
    require(steps == count > 0, f"global_step is {count}, the loops count {steps} steps")
    require(epoch == position.epochs, f"epoch is {epoch}, the loops count {position.epochs}")
    if position.batches:
        expected = {"epoch": position.epochs, "given": position.batches}
        require(loader == expected, f"the loader is at {loader}, the loops are at {position}")


def _check_counts(counters: Any, name: str) -> None:
    if isinstance(counters, dict):
        for key, value in counters.items():
            _check_counts(value, f"{name}.{key}")
    elif not isinstance(counters, int) or not 0 <= counters < MAX_COUNT:
        raise DamagedCheckpointError(f"{name} is {str(counters)[:80]}, not a valid count")


def _names(counters: Any) -> set[str]:
    """Return all keys of nested counters."""
    if not isinstance(counters, dict):
        return set()
    return set(counters).union(*map(_names, counters.values()))


def _check_optimizer(checkpoint: dict[str, Any]) -> None:
    states, count = checkpoint["optimizer_states"], len(network_weights(checkpoint))
    is_single = len(states) == 1 and len(checkpoint["lr_schedulers"]) <= 1
    require(is_single, "expected one optimizer and at most one schedule")
    numbers = [number for group in states[0]["param_groups"] for number in group["params"]]
    is_valid = numbers == list(range(len(numbers))) and not states[0]["state"].keys() - numbers
    require(is_valid and len(numbers) > 0, "optimizer_states: the parameter numbers are invalid")
    has_few = len(numbers) <= count
    require(has_few, f"optimizer_states has {len(numbers)} parameters, more than the network")


def _check_random_states(states: dict[str, Any]) -> None:
    """Load the states into separate generators."""
    random.Random().setstate(states["python"])
    name, keys, position, *rest = states["numpy"]
    if not 0 <= position <= len(keys):  # NumPy would read beyond the end
        raise ValueError(f"NumPy's position is {position}")
    np.random.RandomState().set_state((name, keys.numpy(), position, *rest))
    torch.Generator().set_state(states["torch"])
    left, _, following = struct.unpack_from("<iiQ", states["torch"].numpy().tobytes(), 8)
    if (left, following) != (1, 0) and (not 0 < left <= 624 or left + following != 625):
        raise ValueError(f"torch's position is {following}")
    list(states["cuda"])
    for other in states.get("others", ()):  # of several processes
        _check_random_states(other)


def recent_checkpoints(run: Run) -> list[Path]:
    """Return the newest `last*.ckpt` of a run, newest first; include unreadable ones."""
    name = re.compile(r"last(-\d{1,4})?\.ckpt")
    paths = [path for path in entries(run.checkpoints) if name.fullmatch(path.name)]
    return sorted(paths, key=lambda path: int(path.stem.partition("-")[2] or 0))[:MAX_ATTEMPTS]


def newest_checkpoint(run: Run, move: bool = False) -> Path:
    """Find the newest `last*.ckpt` of a run that can be resumed; report damaged ones.

    Args:
        run: the run; the caller must hold its lock if `move` is true.
        move: rename damaged files.

    Raises:
        UserError: there is no such checkpoint.
    """
    paths = recent_checkpoints(run)
    for path in paths:
        try:
            read_resumable(path)
        except DamagedCheckpointError as error:
            text = str(error) if str(path) in str(error) else f"{path} is damaged: {error}"
            text += "; using the previous checkpoint" if path != paths[-1] else ""
            say(text + (f"; renamed the file to {rename_damaged(path).name}" if move else ""))
        else:
            return path
    if not run.config.is_file() and any(run.checkpoints.glob("*.ckpt")):
        raise UserError(f"{run.folder} was not made by `fit`; only runs of `fit` can be resumed")
    raise run.no_checkpoint_error("intact checkpoint")
