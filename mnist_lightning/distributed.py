"""Several processes that train one run: join them, exchange values, decide on rank 0.

The first of them keeps the run, and speaks; a process by itself is the first of one.
"""

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import distributed

from mnist_lightning.errors import UserError

if TYPE_CHECKING:  # a network that reads pictures needs no lightning
    from lightning.pytorch import Trainer

Value = TypeVar("Value")


def count() -> int:
    """How many there are."""
    joined = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if joined else 1


def rank() -> int:
    """Which of them this is, from 0 on."""
    return distributed.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Whether this is the first one; known from who started it, before they are joined."""
    if distributed.is_available() and distributed.is_initialized():
        return bool(distributed.get_rank() == 0)
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    return not getattr(rank_zero_only, "rank", 0)  # None where nobody started several


def join(trainer: "Trainer") -> None:
    """Start the others, unless torchrun or a cluster did, and connect with them.

    From then on only the first speaks.

    Raises:
        UserError: several were started, and the trainer is for one.
    """
    if trainer.world_size == 1:
        started = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1")))
        if started > 1 and "LOCAL_RANK" in os.environ | _as_slurm_names_it():
            raise UserError(
                f"{started} processes were started, and this run is for one: give "
                f"--trainer.devices {started} (on each machine) and --trainer.strategy ddp",
                status=2,
            )
        return
    with _ended_by_ctrl_c():
        trainer.strategy.launcher.launch(lambda: None)  # type: ignore[union-attr] # they have one
        trainer.strategy.setup_environment()
    if not is_first():
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends


def _as_slurm_names_it() -> dict[str, str]:
    """The local rank of a step of several; in a batch script's own shell there is none."""
    return {"LOCAL_RANK": os.environ["SLURM_LOCALID"]} if "SLURM_STEP_ID" in os.environ else {}


@contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """End at once on Ctrl-C: Python would first wait for the others, who may be gone by it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run_on_rank_zero(decide: Callable[[], Value]) -> Value:
    """Have the first one decide, and the others take its word.

    Raises:
        SystemExit: in the others, where it fails; in the first, its own error.
    """
    if count() == 1:
        return decide()
    told: list[Any] = [None, False]
    try:
        if is_first():
            told = [decide(), True]
    finally:
        distributed.broadcast_object_list(told)
    if not told[1]:
        raise SystemExit(0)  # the first one tells why
    decided: Value = told[0]
    return decided


def gathered(value: Value) -> list[Value]:
    """The value of each, primitives and tensors, by rank."""
    if count() == 1:
        return [value]
    content = io.BytesIO()
    torch.save(value, content)  # pickled by themselves, tensors of some types cannot be read back
    contents: list[Any] = [None] * count()
    distributed.all_gather_object(contents, content.getvalue())
    return [torch.load(io.BytesIO(each), weights_only=True) for each in contents]


def assert_same_path(*paths: Path) -> None:
    """See to it that all work on the same files: each has looked for them by itself.

    Raises:
        UserError: in all, where another run came while they looked.
    """
    if len(set(gathered("\0".join(map(str, paths))))) > 1:
        raise UserError("another run came while the processes began: give the RUN by its number", 2)


def all_reduce_max(number: int, device: torch.device) -> int:
    """The greatest of all their numbers."""
    if count() == 1:
        return number
    numbers = torch.tensor(number, device=device)
    distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
    return int(numbers)


def share(total: int) -> slice:
    """Which of so many things are this one's: every thing is just one's."""
    return slice(total * rank() // count(), total * (rank() + 1) // count())
