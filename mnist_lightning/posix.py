"""Functions that need Linux or another POSIX system. docs/reference.md states what this means.

All other modules use only what Python offers on every system.
"""

import ctypes
import mmap
import multiprocessing
import os
import select
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import IO


def sync_folder(folder: Path) -> None:
    """Flush the names of a folder's files to the disk, for example after a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_descriptor(path: Path) -> int:
    """Open a file for reading; never wait for the other end of a pipe."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def is_readable(stream: IO[bytes], deadline: float) -> bool:
    """Wait until a pipe has content or has ended; return False at `deadline`, a monotonic time."""
    poller = select.poll()  # not `select`: a server may have more than 1,024 open files
    poller.register(stream, select.POLLIN)
    return bool(poller.poll(1000 * max(0.0, deadline - time.monotonic())))


def end_process_after(seconds: int) -> None:
    """End this process after so many seconds; 0: do not end it any more."""
    signal.alarm(seconds)


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


def prefetch(address: int, offsets: Iterable[int], size: int) -> None:
    """Start to read parts of a memory-mapped file from the disk, without waiting.

    Args:
        address: of the first byte of the file.
        offsets: the first byte of each part.
        size: the number of bytes of each part.
    """
    for offset in offsets:
        _madvise(address + offset, size, mmap.MADV_WILLNEED)


def _madvise(address: int, size: int, advice: int) -> None:
    start = address - address % mmap.PAGESIZE
    # An error would only mean that the advice is not followed.
    _libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(address + size - start), advice)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def cpu_count() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def fork_server() -> ForkServerContext:
    """Return the context whose processes are forks of one process, which imports everything."""
    return multiprocessing.get_context("forkserver")


def was_killed(exit_code: int | None) -> bool:
    """Return whether a process with this exit code was killed."""
    return exit_code == -signal.SIGKILL


def fork_workers() -> None:
    """Let processes that this one starts be forks of it, also if a fork server started it."""
    multiprocessing.set_start_method("fork", force=True)
