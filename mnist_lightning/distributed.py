"""Several processes that train one run: join them, exchange values, decide on rank 0.

Only rank 0 writes the run and prints messages; a single process has rank 0.
"""

import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import distributed

from mnist_lightning.errors import UserError

if TYPE_CHECKING:  # predictions do not need lightning
    from lightning.pytorch import Trainer

Value = TypeVar("Value")


def world_size() -> int:
    """Return the number of processes."""
    joined = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if joined else 1


def is_distributed() -> bool:
    """Return whether there are several processes."""
    return world_size() > 1


def rank() -> int:
    """Return the rank of this process, from 0."""
    return distributed.get_rank() if world_size() > 1 else 0


def is_rank_zero() -> bool:
    """Return whether this is rank 0; works before `join`, from the launcher's environment."""
    if distributed.is_available() and distributed.is_initialized():
        return bool(distributed.get_rank() == 0)
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    return not getattr(rank_zero_only, "rank", 0)  # None for a single process


def join(trainer: "Trainer") -> None:
    """Start the other processes, unless torchrun or a cluster did, and connect to them.

    After this, only rank 0 prints.

    Raises:
        UserError: several processes were started, but the trainer is for one.
    """
    if trainer.world_size == 1:
        started = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1")))
        # A shell of a SLURM batch script, outside of a step, has no rank.
        if started > 1 and not {"LOCAL_RANK", "SLURM_STEP_ID"}.isdisjoint(os.environ):
            raise UserError(
                f"{started} processes were started, but the options are for one: use "
                f"--trainer.devices {started} (on each machine) and --trainer.strategy ddp",
                status=2,
            )
        return
    # Exit at once on Ctrl-C: Python would wait for the other processes, which may have ended.
    previous = signal.getsignal(signal.SIGINT)
    if previous is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        trainer.strategy.launcher.launch(lambda: None)  # type: ignore[union-attr] # ddp has one
        trainer.strategy.setup_environment()
    finally:
        signal.signal(signal.SIGINT, previous)
    if not is_rank_zero():
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends


def run_on_rank_zero(function: Callable[[], Value]) -> Value:
    """Run a function on rank 0 and return its result on all ranks.

    Raises:
        SystemExit: on the other ranks if it fails; rank 0 raises the error itself.
    """
    if world_size() == 1:
        return function()
    message: list[Any] = [None, False]
    try:
        if is_rank_zero():
            message = [function(), True]
    finally:
        distributed.broadcast_object_list(message)
    if not message[1]:
        raise SystemExit(0)  # rank 0 reports the error
    result: Value = message[0]
    return result


def all_gather(value: Value) -> list[Value]:
    """Return the values (primitives and tensors) of all ranks, in the order of the ranks."""
    if world_size() == 1:
        return [value]
    content = io.BytesIO()
    torch.save(value, content)  # pickle alone cannot restore tensors of some types
    contents: list[Any] = [None] * world_size()
    distributed.all_gather_object(contents, content.getvalue())
    return [torch.load(io.BytesIO(part), weights_only=True) for part in contents]


def assert_same_path(*paths: Path) -> None:
    """Check that all ranks found the same paths: each rank searches for them itself.

    Raises:
        UserError: on all ranks, if another run was created during the search.
    """
    if len(set(all_gather("\0".join(map(str, paths))))) > 1:
        problem = "another run was created at the same time"
        raise UserError(f"{problem}: give the version number of the RUN", 2)


def all_reduce_max(number: int, device: torch.device) -> int:
    """Return the maximum of the numbers of all ranks, of which there are several."""
    numbers = torch.tensor(number, device=device)
    distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
    return int(numbers)


def rank_slice(total: int) -> slice:
    """Return this rank's part of `total` items; each item belongs to exactly one rank."""
    return slice(total * rank() // world_size(), total * (rank() + 1) // world_size())
