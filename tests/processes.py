"""Commands in processes of their own, quick to start, to be killed at a chosen place.

Nothing in them is replaced but for the one call at which they end.
"""

import os
import signal
import sys
from importlib import import_module
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

from mnist_lightning import posix
from mnist_lightning.cli.verify import PRELOADED, work

posix.fork_server().set_forkserver_preload([*PRELOADED, "sklearn.datasets"])  # the embedded digits


class Place(NamedTuple):
    """A call at which a process sends itself a signal: of a module's function, the n-th time.

    Attributes:
        module: where it is.
        name: of the function, or `Class.method`.
        call: which call; the first is 1.
        after: whether the signal comes when the call is done, in place of before it.
        sends: which signal.
    """

    module: str
    name: str
    call: int
    after: bool = False
    sends: signal.Signals = signal.SIGKILL


def start(
    arguments: list[str],
    folder: Path,
    place: Place | None = None,
    environment: dict[str, str] | None = None,
) -> ForkServerProcess:
    """Start a command in `folder`; what it prints is appended to `folder/printed`."""
    begun(folder).unlink(missing_ok=True)
    inputs = (arguments, str(folder), place, environment or {})
    process = posix.fork_server().Process(target=_work, args=inputs)
    process.start()
    return process


def run(
    arguments: list[str],
    folder: Path,
    place: Place | None = None,
    environment: dict[str, str] | None = None,
) -> int:
    """Run a command to its end; return its exit status, as shells have it."""
    return ended(start(arguments, folder, place, environment))


def ended(process: ForkServerProcess) -> int:
    """Wait for a process; return its exit status, as shells have it."""
    process.join(600)
    assert process.exitcode is not None, "it does not end"
    return process.exitcode if process.exitcode >= 0 else 128 - process.exitcode


def _work(
    arguments: list[str], folder: str, place: Place | None, environment: dict[str, str]
) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update(environment)
    sys.path.insert(0, folder)  # as `python -m` does
    os.setsid()  # a group of its own, as a job of a terminal is
    try:
        begun(Path(folder)).touch()
        if place is not None:
            _lay_mine(place)
        work(arguments, folder)
    except KeyboardInterrupt:  # before the command could tell it
        os._exit(130)


def begun(folder: Path) -> Path:
    """A file that is there once a command is under way; a signal before that is not its own."""
    return folder / ".begun"


def _lay_mine(place: Place) -> None:
    *inside, name = place.name.split(".")
    owner: Any = import_module(place.module)
    for part in inside:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), 0

    def watched(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        now = calls == place.call
        if now and not place.after:
            signal.raise_signal(place.sends)
        result = original(*arguments, **named)
        if now and place.after:
            signal.raise_signal(place.sends)
        return result

    setattr(owner, name, watched)
