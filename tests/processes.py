"""Commands in processes that start quickly and receive a signal at a chosen call.

Only the function at whose call the signal is sent is replaced.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

from mnist_lightning import posix
from mnist_lightning.cli.verify import PRELOADED, work

posix.fork_server().set_forkserver_preload([*PRELOADED, "sklearn.datasets"])  # the bundled digits

CLASSIFIER = "mnist_lightning.training.lightning_module"
CHECKPOINTING = "mnist_lightning.training.callbacks.checkpointing"
RUNNER = "mnist_lightning.training.runner"


class SignalPoint(NamedTuple):
    """A call at which a process sends itself a signal.

    Attributes:
        module: the module of the function.
        name: its name, or `Class.method`.
        call: the number of the call; the first is 1.
        after: send the signal after the call, instead of before it.
        signum: the signal.
    """

    module: str
    name: str
    call: int
    after: bool = False
    signum: signal.Signals = signal.SIGKILL


def at_step(call: int, signum: signal.Signals = signal.SIGKILL, after: bool = False) -> SignalPoint:
    """Return the point before or after a training step; the first since the start is 1."""
    return SignalPoint(CLASSIFIER, "DigitClassifier.training_step", call, after, signum)


@contextmanager
def child_process(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start any command; kill it at the end, also if the test fails before."""
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def start(
    arguments: list[str],
    folder: Path,
    point: SignalPoint | None = None,
    environment: dict[str, str] | None = None,
) -> ForkServerProcess:
    """Start a command in `folder`; append its output to the file `printed` there."""
    start_marker(folder).unlink(missing_ok=True)
    inputs = (arguments, str(folder), point, environment or {})
    process = posix.fork_server().Process(target=_work, args=inputs)
    process.start()
    return process


def run(
    arguments: list[str],
    folder: Path,
    point: SignalPoint | None = None,
    environment: dict[str, str] | None = None,
) -> int:
    """Run a command to its end; return its exit status, 128 + N after a signal N."""
    return wait_for_exit(start(arguments, folder, point, environment))


def wait_for_exit(process: ForkServerProcess) -> int:
    """Wait for a process; return its exit status, 128 + N after a signal N."""
    process.join(600)
    assert process.exitcode is not None, "it does not end"
    return process.exitcode if process.exitcode >= 0 else 128 - process.exitcode


def read_output(folder: Path) -> str:
    """Return the output of all commands that ran in `folder`."""
    return (folder / "printed").read_text()


def _work(
    arguments: list[str], folder: str, point: SignalPoint | None, environment: dict[str, str]
) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update(environment)
    sys.path.insert(0, folder)  # as `python -m` does
    os.setsid()  # a process group of its own, as for a job of a terminal
    try:
        start_marker(Path(folder)).touch()
        if point is not None:
            _send_signal_at(point)
        work(arguments, folder)
    except KeyboardInterrupt:  # before the command handles signals
        os._exit(130)


def start_marker(folder: Path) -> Path:
    """Return the path of a file that exists once the command has started."""
    return folder / ".started"


def _send_signal_at(point: SignalPoint) -> None:
    *owners, name = point.name.split(".")
    owner: Any = import_module(point.module)
    for part in owners:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), 0

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        reached = calls == point.call
        if reached and not point.after:
            signal.raise_signal(point.signum)
        result = original(*args, **kwargs)
        if reached and point.after:
            signal.raise_signal(point.signum)
        return result

    setattr(owner, name, wrapper)
