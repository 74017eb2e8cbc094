"""Find the checkpoints from which a run can be resumed."""

import random
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mnist_lightning.errors import UserError
from mnist_lightning.files import rename_damaged
from mnist_lightning.runs.checkpoint import (
    PARTS,
    DamagedCheckpointError,
    network_weights,
    read_checkpoint,
)
from mnist_lightning.runs.run_directory import Run
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
        "this checkpoint was saved within a step, by another callback or an earlier version; "
        "resume from the last.ckpt beside it"
    )


def validate_checkpoint(checkpoint: dict[str, Any]) -> None:
    """Check that a run can be resumed from a loaded checkpoint.

    Raises:
        DamagedCheckpointError: a part is missing, a part does not have the format of `fit`, or its
            counters contradict each other.
    """
    for name, kind in PARTS.items():
        _get(checkpoint, name, kind)
    if not isinstance(checkpoint["network"].get("class_path"), str):
        raise DamagedCheckpointError("network has no class_path")
    if not network_weights(checkpoint):
        raise DamagedCheckpointError("state_dict has no weights of a network")
    _check_trainer(checkpoint["trainer"])
    _check_counters(checkpoint)
    _check_optimizer(checkpoint)
    _check_callbacks(checkpoint["callbacks"])


def _get(parent: dict[str, Any], name: str, kind: type) -> Any:
    if name not in parent:
        raise DamagedCheckpointError(f"it has no {name}: `fit` did not write it")
    value = parent[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DamagedCheckpointError(f"{name} is {type(value).__name__}, not {kind.__name__}")
    return value


def _check_counters(checkpoint: dict[str, Any]) -> None:
    try:
        loop = checkpoint["loops"]["fit_loop"]
        for part, counters in loop.items():
            if part != "state_dict":
                _check_counts(counters, f"loops.{part}")
        position = progress(checkpoint)
        optimizer = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
        steps = optimizer["step"]["total"]["completed"]
        (loader,) = loop["state_dict"]["combined_loader"]
        loader = {"epoch": loader["epoch"], "given": loader["given"]}
        _check_counts(loader, "loader")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DamagedCheckpointError(f"loops: {type(error).__name__} {error}") from None
    if not steps == checkpoint["global_step"] > 0:
        count = checkpoint["global_step"]
        raise DamagedCheckpointError(f"global_step is {count}, the loops count {steps} steps")
    if checkpoint["epoch"] != position.epochs:
        count = checkpoint["epoch"]
        raise DamagedCheckpointError(f"epoch is {count}, the loops count {position.epochs}")
    if position.batches and loader != {"epoch": position.epochs, "given": position.batches}:
        raise DamagedCheckpointError(f"the loader is at {loader}, the loops are at {position}")


def _check_trainer(trainer: dict[str, Any]) -> None:
    if _get(trainer, "accumulate_grad_batches", int) < 1:
        raise DamagedCheckpointError("trainer.accumulate_grad_batches is below 1")
    if trainer.get("logged_steps", ...) is not None:
        _check_counts(_get(trainer, "logged_steps", dict), "trainer.logged_steps")
    for state in _get(trainer, "model_checkpoints", dict).values():
        if not isinstance(state, dict):
            raise DamagedCheckpointError("trainer.model_checkpoints contains an invalid state")
    for name, value in _get(trainer, "callback_metrics", dict).items():
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise DamagedCheckpointError(f"trainer.callback_metrics[{name!r}] is not a number")


def _check_counts(counters: Any, name: str) -> None:
    if isinstance(counters, dict):
        for key, value in counters.items():
            _check_counts(value, f"{name}.{key}")
    elif not isinstance(counters, int) or counters < 0:
        raise DamagedCheckpointError(f"{name} is {str(counters)[:80]}, not a valid count")


def _check_optimizer(checkpoint: dict[str, Any]) -> None:
    if len(checkpoint["optimizer_states"]) != 1 or len(checkpoint["lr_schedulers"]) > 1:
        raise DamagedCheckpointError("expected one optimizer and at most one schedule")
    try:
        (state,) = checkpoint["optimizer_states"]
        numbers = [number for group in state["param_groups"] for number in group["params"]]
        states = state["state"]
        rates = [group["lr"] for group in state["param_groups"]]
        if not all(isinstance(rate, float | int | Tensor) for rate in rates):
            raise DamagedCheckpointError("optimizer_states: the learning rate is not a number")
        if not all(isinstance(item, dict) for item in states.values()):
            raise DamagedCheckpointError("optimizer_states: the state of a parameter is not a dict")
        unknown = states.keys() - set(numbers)
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpointError(f"optimizer_states: {type(error).__name__} {error}") from None
    if numbers != list(range(len(numbers))) or unknown or not numbers:
        raise DamagedCheckpointError("optimizer_states: the parameter numbers are invalid")
    if len(numbers) > len(network_weights(checkpoint)):
        raise DamagedCheckpointError(
            f"optimizer_states has {len(numbers)} parameters, more than the network"
        )
    if not all(isinstance(state, dict) for state in checkpoint["lr_schedulers"]):
        raise DamagedCheckpointError("lr_schedulers: the state of a schedule is not a dict")


def _check_callbacks(callbacks: dict[str, Any]) -> None:
    state = callbacks.get("RunCheckpoints")
    if not isinstance(state, dict) or not isinstance(state.get("validated_step"), int):
        raise DamagedCheckpointError("callbacks.RunCheckpoints is not a valid state")
    for name in ("best", "validated"):
        score = state.get(name)
        if not isinstance(score, dict) or not all(isinstance(n, float) for n in score.values()):
            raise DamagedCheckpointError(f"callbacks.RunCheckpoints.{name} is not a score")
    if state["best"] and not 0 <= state["best"].get("epoch", -1) < 2**31:
        raise DamagedCheckpointError("callbacks.RunCheckpoints.best has no epoch")
    try:  # with separate generators
        states = callbacks["RandomState"]
        random.Random().setstate(states["python"])
        name, keys, position, *rest = states["numpy"]
        if not 0 <= position <= len(keys):  # NumPy would read beyond the end
            raise ValueError(f"NumPy's position is {position}")
        np.random.RandomState().set_state((name, keys.numpy(), position, *rest))
        torch.Generator().set_state(states["torch"])
        list(states["cuda"]), list(states.get("others", ()))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise DamagedCheckpointError(f"callbacks.RandomState: {reason}") from None


def recent_checkpoints(run: Run) -> list[Path]:
    """Return the newest `last*.ckpt` of a run, newest first; include unreadable ones."""
    names = re.compile(r"last(-\d{1,4})?\.ckpt")
    paths = [path for path in _entries(run.checkpoints) if names.fullmatch(path.name)]
    return sorted(paths, key=lambda path: int(path.stem.partition("-")[2] or 0))[:MAX_ATTEMPTS]


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


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
            validate_checkpoint(read_checkpoint(path))
        except DamagedCheckpointError as error:
            text = str(error) if str(path) in str(error) else f"{path} is damaged: {error}"
            text += "; using the checkpoint before it" if path != paths[-1] else ""
            say(text + (f"; renamed to {rename_damaged(path).name}" if move else ""))
        else:
            return path
    if not run.config.is_file() and any(run.checkpoints.glob("*.ckpt")):
        raise UserError(f"{run.folder} was not made by `fit`; only runs of `fit` can be resumed")
    raise run.no_checkpoint_error("intact checkpoint")
