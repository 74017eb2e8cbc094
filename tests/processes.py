"""Commands in processes of their own, quick to start, to be killed at a chosen place.

The processes are forked from a server that has imported everything already, so that a test pays
for the imports once. Nothing in them is replaced but for the one call at which they end.
"""

import multiprocessing
import os
import signal
import sys
from importlib import import_module
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["mnist_lightning.cli", "mnist_lightning.callbacks.weights"])


class Place(NamedTuple):
    """A call at which a process sends itself a signal: `Class.method` of a module, the n-th time.

    Attributes:
        module: where the class is.
        name: `Class.method`.
        call: which call; the first is 1.
        after: whether the signal comes when the call is done, in place of before it.
        sends: which signal.
    """

    module: str
    name: str
    call: int
    after: bool = False
    sends: signal.Signals = signal.SIGKILL


def start(arguments: list[str], folder: Path, place: Place | None = None) -> ForkServerProcess:
    """Start a command in `folder`; what it prints is appended to `folder/printed`."""
    process = CONTEXT.Process(target=_work, args=(arguments, str(folder), place))
    process.start()
    return process


def run(arguments: list[str], folder: Path, place: Place | None = None) -> int:
    """Run a command to its end; return its exit status, as shells have it."""
    process = start(arguments, folder, place)
    process.join(120)
    assert process.exitcode is not None, "it does not end"
    return process.exitcode if process.exitcode >= 0 else 128 - process.exitcode


def _work(arguments: list[str], folder: str, place: Place | None) -> None:
    import torch

    from mnist_lightning.__main__ import main

    torch.set_num_threads(1)
    # As in a process from a shell; here the data's workers would have a server of their own.
    multiprocessing.set_start_method("fork", force=True)
    os.chdir(folder)
    descriptor = os.open("printed", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if place is not None:
        _lay_mine(place)
    status = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _lay_mine(place: Place) -> None:
    owner, method = place.name.split(".")
    cls = getattr(import_module(place.module), owner)
    original, calls = getattr(cls, method), 0

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

    setattr(cls, method, watched)
