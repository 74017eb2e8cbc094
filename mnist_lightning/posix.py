"""Functions that need Linux or another POSIX system. docs/reference.md states what this means.

All other modules use only what Python offers on every system.
"""

import ctypes
import errno
import mmap
import multiprocessing
import os
import platform
import select
import signal
import stat
import subprocess
import time
from contextlib import suppress
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from threading import Thread
from typing import IO, TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def sync_folder(folder: Path) -> None:
    """Flush the names of a folder's files to the disk, for example after a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_for_reading(path: Path) -> BinaryIO:
    """Open a file; never wait for the other end of a pipe.

    Raises:
        OSError: it is a directory, or cannot be opened.
    """

    def open_descriptor(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK)

    return open(path, "rb", opener=open_descriptor)


def open_for_update(path: Path) -> BinaryIO:
    """Open a regular file for reading and writing; create it if it does not exist.

    Raises:
        OSError: it is a link, a directory or a special file, or cannot be opened.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o666)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "r+b")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def is_readable(stream: IO[bytes], deadline: float) -> bool:
    """Wait until a pipe has content or has ended; return False at `deadline`, a monotonic time."""
    poller = select.poll()  # not `select`: a server may have more than 1,024 open files
    poller.register(stream, select.POLLIN)
    return bool(poller.poll(1000 * max(0.0, deadline - time.monotonic())))


def end_process_after(seconds: int) -> None:
    """End this process after so many seconds; 0: do not end it any more."""
    signal.alarm(seconds)


MAX_SAVING_SECONDS = 10.0  # from SIGTERM to SIGKILL


def end_with_parent() -> None:
    """End this process when its standard input ends: a pipe whose other end its parent holds.

    The pipe ends with the parent, even if the parent is killed. SIGTERM comes first, so that a
    training can save its state.
    """

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(MAX_SAVING_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    Thread(target=watch, daemon=True).start()


NICENESS = 5  # of a process that yields: beside one busy process, it gets a quarter of a core


def lower_priority(process_id: int) -> None:
    """Let a process that was just started yield the processor to others of this user."""
    with suppress(OSError):  # it has ended
        os.setpriority(os.PRIO_PROCESS, process_id, NICENESS)


def limit_memory(count: int) -> None:
    """Limit the address space of this process to `count` bytes, unless a lower limit is set."""
    import resource

    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (count, count))


def expect_random_access(address: int, size: int) -> None:
    """Tell the system that memory-mapped bytes are used in random order: read no more than asked.

    Args:
        address: of the first byte.
        size: the number of bytes.
    """
    _madvise(address, size, mmap.MADV_RANDOM)


def prefetch(ranges: "NDArray[np.uint64]") -> None:
    """Start to read parts of memory-mapped files from the disk, without waiting.

    One call of the system requests many parts; where it does not exist, each part needs a call.

    Args:
        ranges: (N, 2), the address of the first byte of each part, and its number of bytes.
    """
    starts = ranges[:, 0] - ranges[:, 0] % mmap.PAGESIZE
    ranges[:, 1] += ranges[:, 0] - starts
    ranges[:, 0] = starts
    for first in range(0, len(ranges), _MAX_RANGES):
        part = ranges[first : first + _MAX_RANGES]
        if _process_madvise(part.ctypes.data, len(part)) < 0:
            for address, size in part.tolist():
                _madvise(address, size, mmap.MADV_WILLNEED)


_MAX_RANGES = 1024  # Linux' UIO_MAXIOV
_PROCESS_MADVISE = 440  # the number of the call, on all processors; Linux 5.10


def _process_madvise(ranges: int, count: int) -> int:
    if not hasattr(os, "pidfd_open"):
        return -1
    process = os.pidfd_open(os.getpid())
    try:
        advice = ctypes.c_int(mmap.MADV_WILLNEED)
        pointer, length = ctypes.c_void_p(ranges), ctypes.c_size_t(count)
        number, flags = ctypes.c_long(_PROCESS_MADVISE), ctypes.c_uint(0)
        return int(_libc().syscall(number, ctypes.c_int(process), pointer, length, advice, flags))
    finally:
        os.close(process)


def _madvise(address: int, size: int, advice: int) -> None:
    start = address - address % mmap.PAGESIZE
    # An error would only mean that the advice is not followed.
    _libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(address + size - start), advice)


@cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    library.syscall.restype = ctypes.c_long
    return library


def is_private(folder: Path) -> bool:
    """Return whether a folder belongs to this user, and no other user can write to it."""
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def cpu_count() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_name() -> str:
    """Return the model of the processor; on other systems than Linux, its architecture."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def start_dependent_process(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process whose standard input ends with this process, also if this one is killed.

    Args:
        command: its command; the process must end when its standard input ends.
        options: further arguments of `Popen`.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,  # the terminal's Ctrl-C does not reach it
        **options,
    )
    assert process.stdin is not None
    # Forks of this process, such as workers of a data loader, must not keep the pipe open.
    os.register_at_fork(after_in_child=process.stdin.close)
    return process


def fork_server() -> ForkServerContext:
    """Return the context whose processes are forks of one process, which imports everything."""
    return multiprocessing.get_context("forkserver")


def was_killed(exit_code: int | None) -> bool:
    """Return whether a process with this exit code was killed."""
    return exit_code == -signal.SIGKILL


def fork_workers() -> None:
    """Let processes that this one starts be forks of it, also if a fork server started it."""
    multiprocessing.set_start_method("fork", force=True)
