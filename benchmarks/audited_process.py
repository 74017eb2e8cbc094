"""Run a command in a forked process under an audit hook, and measure its time and memory."""

import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mnist_lightning.cli.main import COMMANDS, main

# Modules that the commands import lazily.
PRELOADED = (
    "rich._emoji_codes",  # imported for a name with two colons
    "matplotlib.backends.backend_agg",
    "matplotlib.pyplot",
    "mnist_lightning.evaluation.comparison",
    "safetensors.torch",
    "sklearn.datasets",
)


class CommandResult(NamedTuple):
    """The result of a command.

    Attributes:
        status: its exit status; negative if a signal ended it.
        cpu_seconds: its CPU time.
        memory_kb: its maximum resident memory, in units of 1,024 bytes.
        events: its imports, new processes, sockets, and writes outside its folder.
        output: its standard output and standard error.
    """

    status: int
    cpu_seconds: float
    memory_kb: int
    events: frozenset[str]
    output: str


def preload() -> None:
    """Import all modules of the commands: any import in a forked process is then suspicious."""
    torch.set_num_threads(1)
    for name in COMMANDS:
        import_module(f"mnist_lightning.cli.{name}")
    for name in PRELOADED:
        import_module(name)


def run_command(arguments: list[str], folder: Path, timeout: float) -> CommandResult:
    """Run a command in a fork of this process, in a folder, for at most `timeout` seconds."""
    output, events = folder / ".output", folder / ".events"
    deadline = time.perf_counter() + timeout
    pid = os.fork()
    if pid == 0:
        _run_in_child(arguments, folder, output, events)
    status, usage = _wait(pid, deadline)
    return CommandResult(
        os.waitstatus_to_exitcode(status),
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss,
        frozenset(events.read_text().splitlines() if events.exists() else ()),
        output.read_text(errors="replace") if output.exists() else "",
    )


def _wait(pid: int, deadline: float) -> tuple[int, resource.struct_rusage]:
    """Wait for a process, and kill it at the deadline; return its status and resource usage."""
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return status, usage
        if time.perf_counter() > deadline:
            os.kill(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            return status, usage
        time.sleep(0.005)


def _run_in_child(arguments: list[str], folder: Path, output: Path, events: Path) -> None:
    os.setsid()
    os.chdir(folder)
    tempfile.tempdir = str(folder)  # so that a write to the system's directory is outside
    signal.signal(signal.SIGINT, signal.default_int_handler)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    descriptor = os.open(events, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    sys.addaudithook(_AuditHook(str(folder.resolve()), descriptor))
    status = 1
    try:
        status = main(arguments)
    except SystemExit as error:
        status = int(error.code or 0) if isinstance(error.code, int | None) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class _AuditHook:
    """Record imports, new processes, sockets, and writes outside a folder: one per line."""

    WRITES = (
        *("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.chmod"),
        *("os.chown", "os.truncate", "shutil.rmtree", "shutil.move", "shutil.copyfile"),
    )
    # These act on the target of a link; the others act on the link itself.
    FOLLOW_LINKS = ("os.chmod", "os.chown", "os.truncate", "shutil.copyfile")
    PROCESSES = (
        *("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty"),
        *("os.posix_spawn", "os.spawn", "pty.spawn"),
    )
    SOCKETS = (
        *("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"),
        "socket.gethostbyname",
    )

    def __init__(self, folder: str, descriptor: int) -> None:
        self.folder = folder
        self.descriptor = descriptor
        self.recorded: set[str] = set()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "import":
            if arguments[0] not in sys.modules:
                self.record(f"import {arguments[0]}")
        elif event == "open":
            path, mode, flags = arguments
            writes = (isinstance(mode, str) and any(sign in mode for sign in "wax+")) or (
                isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            )
            if writes:
                self.check_path(event, path)
        elif event in self.WRITES:
            for path in arguments[:2]:
                self.check_path(event, path, follow=event in self.FOLLOW_LINKS)
        elif event in self.PROCESSES or event in self.SOCKETS:
            self.record(f"{event} {str(arguments[:1])[:100]}")

    def check_path(self, event: str, path: Any, follow: bool = True) -> None:
        """Record a path outside the folder."""
        if isinstance(path, str | bytes | os.PathLike):
            name = os.fsdecode(path)
            parent, last = os.path.split(os.path.abspath(name))  # noqa: PTH100
            real = os.path.realpath(name) if follow else f"{os.path.realpath(parent)}/{last}"
            if not real.startswith(self.folder + os.sep) and not real.startswith("/dev/"):
                self.record(f"{event} {real}")

    def record(self, line: str) -> None:
        """Write a line, unless it is already written."""
        line = line.replace("\n", " ")
        if line not in self.recorded:
            self.recorded.add(line)
            os.write(self.descriptor, (line + "\n").encode(errors="replace"))
