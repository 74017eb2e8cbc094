"""Check that a checkpoint can be restored into a run's network, optimizer and schedule."""

import copy
import inspect
from typing import Any

import torch
from torch import nn
from torch.optim import LBFGS, Optimizer

from mnist_lightning.runs.checkpoint import network_weights
from mnist_lightning.training.callbacks.ema import TRAINED_KEY
from mnist_lightning.training.lightning_module import DigitClassifier

_SCHEDULED = ("lr", "initial_lr", "momentum", "base_momentum", "max_momentum")
MAX_REASON_CHARS = 300  # of another library's error message


def find_incompatibility(model: DigitClassifier, checkpoint: dict[str, Any]) -> str | None:
    """Load a checkpoint into copies and take one step; return the error, or None."""
    network = copy.deepcopy(model.network)
    optimizer = model.optimizer_factory(network.parameters())
    schedule = model.make_schedule(optimizer, total_steps=1000)
    saved = copy.deepcopy(checkpoint["optimizer_states"][0])  # the step below changes it
    try:
        for sums in [{}, *checkpoint.get("train_metrics", [])]:  # of each process
            _compare_shapes(model.state_dict(), checkpoint["state_dict"] | sums)
        network.load_state_dict(network_weights(checkpoint))
        take_zero_step(network, optimizer)
        # Compare before loading: a fused optimizer writes beyond the end of a state that is small.
        weights = [*network_weights(checkpoint).values(), *checkpoint.get(TRAINED_KEY, {}).values()]
        types = {weight.dtype for weight in weights if isinstance(weight, torch.Tensor)}
        _compare_optimizer_states(optimizer, saved, types)
        optimizer.load_state_dict(saved)
        saved_schedules = copy.deepcopy(checkpoint["lr_schedulers"])
        if (schedule is not None) != bool(saved_schedules):
            return "lr_schedulers does not match this run's schedule"
        if schedule is not None:
            _compare_schedule_states(schedule, saved_schedules[0], checkpoint["global_step"])
            schedule.load_state_dict(saved_schedules[0])
        take_zero_step(network, optimizer)
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        return " ".join(f"{type(error).__name__} {error}".split())[:MAX_REASON_CHARS]
    return None


def _compare_schedule_states(schedule: Any, saved: dict[str, Any], steps: int) -> None:
    """Compare a saved state with that of a new schedule: names, types, arguments, counters.

    Raises:
        ValueError: the saved state belongs to another schedule, or would take long to continue.
    """
    if not type(schedule).__module__.startswith(("torch.", "mnist_lightning.")):
        return
    arguments = inspect.signature(type(schedule)).parameters.keys() - {"total_steps", "last_epoch"}
    for name, value in schedule.state_dict().items():
        if name not in saved:
            raise ValueError(f"lr_schedulers has no {name}")
        if value is not None and type(saved[name]) is not type(value):
            raise ValueError(f"lr_schedulers: {name} is of type {type(saved[name]).__name__}")
        if isinstance(value, list) and len(saved[name]) != len(value):
            raise ValueError(f"lr_schedulers: {name} has {len(saved[name])} items")
        if name in arguments and saved[name] != value:
            raise ValueError(f"lr_schedulers: {name} differs from the options")
        # Far above the counters of a run of so many steps, also if it accumulates gradients.
        if name in ("last_epoch", "_step_count") and not -1 <= saved[name] <= 1000 * (steps + 1000):
            raise ValueError(f"lr_schedulers: {name} is {saved[name]}")


def _compare_shapes(current: dict[str, torch.Tensor], saved: dict[str, torch.Tensor]) -> None:
    """Compare the names and shapes of a model's weights and sums.

    Raises:
        ValueError: they differ.
    """
    for name in current.keys() | saved.keys():
        if name not in current or name not in saved or current[name].shape != saved[name].shape:
            raise ValueError(f"state_dict[{name!r}] does not match this model")


def _compare_optimizer_states(
    optimizer: Optimizer, saved: dict[str, Any], types: set[torch.dtype]
) -> None:
    """Compare the state of an optimizer after one step with a saved state.

    `types` are those of the saved weights; in another precision they differ from those of the
    optimizer. A kernel would write beyond the end of a state that is too small.

    Raises:
        ValueError: the saved state belongs to another optimizer or network.
    """
    fresh = optimizer.state_dict()
    for new, old in zip(fresh["param_groups"], saved["param_groups"], strict=True):
        _require_names(new, old)
        # Flags select the kernel and the state that it needs.
        if flags := [name for name, value in new.items() if _is_flag(value, old[name])]:
            raise ValueError(f"optimizer_states: {', '.join(flags)} differs from the options")
        # Integers are counts of iterations or of stored vectors.
        for name in new.keys() - {"params", *_SCHEDULED}:
            if isinstance(new[name], int) and old[name] != new[name]:
                raise ValueError(f"optimizer_states: {name} differs from the options")
    limit = fresh["param_groups"][0].get("history_size", 0)  # LBFGS alone has lists
    count = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    for index, old in saved["state"].items():
        new = fresh["state"][index]
        _require_names(new, old)
        for name, value in old.items():
            # LBFGS stores vectors of all parameters after a step that changed them.
            shapes = [new[name].shape] if isinstance(new.get(name), torch.Tensor) else [()]
            if isinstance(optimizer, LBFGS):
                shapes.append(torch.Size([count]))
            elif name not in new:
                raise ValueError(f"optimizer_states has {name}, unknown to this optimizer")
            if isinstance(value, list) and len(value) > limit:
                raise ValueError(f"optimizer_states: {name} has {len(value)} items")
            for tensor in value if isinstance(value, list) else [value]:
                if not isinstance(tensor, torch.Tensor):
                    continue
                if tensor.shape not in shapes or tensor.layout != torch.strided:
                    raise ValueError(f"optimizer_states: {name} has shape {tuple(tensor.shape)}")
                if tensor.dtype not in types | {getattr(new.get(name), "dtype", torch.float32)}:
                    raise ValueError(f"optimizer_states: {name} is of type {tensor.dtype}")


def _require_names(new: dict[str, Any], old: dict[str, Any]) -> None:
    if missing := new.keys() - old.keys():
        raise ValueError(f"optimizer_states has no {', '.join(sorted(missing))}")


def _is_flag(new: Any, old: Any) -> bool:
    """Return whether two values differ and at least one of them is a flag (bool or None)."""
    return (isinstance(new, bool | None) or isinstance(old, bool | None)) and new is not old


def take_zero_step(network: nn.Module, optimizer: Optimizer) -> None:
    """Take an optimizer step with zero gradients."""
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(lambda: 0.0)
