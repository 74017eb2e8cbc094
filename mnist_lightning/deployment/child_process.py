"""A child process that computes for the server: it ends with the server, and yields to it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from signal import Signals
from threading import Event
from typing import IO

from mnist_lightning import posix
from mnist_lightning.errors import PACKAGE

POLL_SECONDS = 0.2
MAX_OUTPUT = 5_000_000  # bytes
LOG_TAIL_BYTES = 10_000
MAX_REASON_CHARS = 500
# A training does not become much faster with more threads; the server needs one itself.
MAX_THREADS = 4

_START = "from mnist_lightning import posix; posix.end_with_parent(); "


class ChildFailedError(Exception):
    """A child process has failed; the message is its last line."""


class CancelledError(Exception):
    """A child process was stopped on request."""


def run_child(
    statement: str, arguments: Sequence[str], cancelled: Event, report: Callable[[], object]
) -> bytes:
    """Run Python code of this package in a child process, and return its standard output.

    Args:
        statement: Python code that imports a function and calls it.
        arguments: the child's `sys.argv[1:]`.
        cancelled: set by another thread to stop the process.
        report: called several times per second while the process runs.

    Raises:
        CancelledError: it was stopped.
        ChildFailedError: it failed.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as log:
        process = _start(statement, arguments, output, log)
        try:
            while process.poll() is None:
                if cancelled.wait(POLL_SECONDS):
                    raise CancelledError
                report()
            report()
        finally:
            _stop(process)
        if process.returncode != 0:
            raise ChildFailedError(_reason(process.returncode, log))
        output.seek(0)
        return output.read(MAX_OUTPUT)


def _start(
    statement: str, arguments: Sequence[str], output: IO[bytes], log: IO[bytes]
) -> subprocess.Popen[bytes]:
    threads = min(MAX_THREADS, max(1, posix.cpu_count() - 1))
    # This package, and nothing from the working directory.
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(paths)}
    process = posix.start_dependent_process(
        [sys.executable, "-c", _START + statement, *arguments],
        stdout=output,
        stderr=log,
        env={"OMP_NUM_THREADS": str(threads)} | os.environ | own,
    )
    posix.lower_priority(process.pid)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process, if it has not ended yet: a training saves its state first."""
    assert process.stdin is not None
    process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(posix.MAX_SAVING_SECONDS + 1)
    process.kill()
    process.wait()


def _reason(status: int, log: IO[bytes]) -> str:
    """Return the last line that a process has printed, without the name of the program."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
    lines = log.read().decode(errors="replace").strip().splitlines()
    if status < 0:
        return f"the process was ended by {Signals(-status).name}"
    last = lines[-1].removeprefix("mnist-lightning: error: ") if lines else "no output"
    return last[:MAX_REASON_CHARS]
