"""Store the 28x28 results of a folder of images, so that each image is processed once.

The cache of a folder is one safetensors file in the user's cache directory. Results belong to
contents, so that a copied or touched file is only read again. A file is not even read if its size
and its times are those of the last start.
"""

import errno
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from platformdirs import user_cache_path
from torch import Tensor

from mnist_lightning import posix
from mnist_lightning.files import remove, write_atomically
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.mnist_format import SIZE
from mnist_lightning.text import say

MAX_CACHE_BYTES = 5_000_000_000  # of all folders: 6 million images; the oldest caches are deleted
# A file may change twice within one tick of the clock of its times: 10 ms, on some systems 2 s.
CLOCK_TICK_NS = 2_000_000_000
_FORMAT = "1"  # of the cache files

Ink = NDArray[np.uint8]  # (28, 28), 0 for paper
Result = Ink | str  # a digit, or the reason why there is none


class FileState(NamedTuple):
    """The size and the times of a file: any change of its content changes one of them."""

    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Return the state of a file."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def cache_folder() -> Path:
    """Return the directory of all caches."""
    return user_cache_path("mnist_lightning") / "image_folders"


def size() -> int:
    """Return the size of all caches in bytes."""
    return sum(path.stat().st_size for path in cache_folder().glob("*.safetensors"))


def clear() -> int:
    """Delete the caches that no process uses; return their size in bytes."""
    before = size()
    for lock_file in cache_folder().glob("*.lock"):
        with suppress(Timeout), FileLock(lock_file, timeout=0):
            for path in lock_file.parent.glob(f"*{lock_file.stem}.*"):
                if path != lock_file:
                    remove(path)
    return before - size()


class FolderCache:
    """The cache of one folder; as a context, it is locked against other processes.

    Args:
        folder: the folder of images.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
        self.path = cache_folder() / f"{name}.safetensors"
        self.problem: str | None = None  # why the cache cannot be stored
        self._lock: AbstractContextManager[Any] = nullcontext()
        self._files: dict[str, tuple[FileState, bytes]] = {}  # by path: the digest of its content
        self._rows: dict[bytes, int] = {}  # by digest: the index of its image
        self._errors: dict[bytes, str] = {}
        self._stored = torch.zeros(0, SIZE, SIZE, dtype=torch.uint8)
        self._new: list[Ink] = []

    def __enter__(self) -> Self:
        """Wait for the lock, and load the cache."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not posix.is_private(self.path.parent):
                raise PermissionError(errno.EPERM, "other users can write to it")
            lock = FileLock(self.path.with_suffix(".lock"))
            try:
                self._lock = lock.acquire(timeout=0)
            except Timeout:
                say(f"another process reads {self.folder}: waiting for it", file=sys.stderr)
                self._lock = lock.acquire()
            for path in self.path.parent.glob(f".{self.path.name}.*.tmp"):
                path.unlink()  # of a killed process
        except OSError as error:
            self.problem = error.strerror or str(error)
        self._lock.__enter__()
        if self.problem is None:
            with suppress(Exception):  # a missing, damaged or former cache is made again
                self._load()
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.__exit__(None, None, None)

    def has(self, path: str, state: FileState) -> bool:
        """Return whether the result of a file is known and the file has not changed."""
        return path in self._files and self._files[path][0] == state

    def result_of_content(self, digest: bytes) -> Result | None:
        """Return the result for a content; None if it is not known."""
        if (row := self._rows.get(digest)) is None:
            return self._errors.get(digest)
        stored = len(self._stored)
        return self._stored[row].numpy() if row < stored else self._new[row - stored]

    def add(self, path: str, state: FileState, digest: bytes, result: Result) -> None:
        """Add the result of a file that has just been read."""
        if time.time_ns() - max(state.modified_ns, state.changed_ns) < CLOCK_TICK_NS:
            state = FileState(-1, 0, 0)  # it could still change unnoticed: read it once more
        self._files[path] = state, digest
        if digest in self._rows or digest in self._errors:
            return
        if isinstance(result, str):
            self._errors[digest] = result
        else:
            self._new.append(result)  # first: other threads read
            self._rows[digest] = len(self._stored) + len(self._new) - 1

    def error(self, path: str) -> str | None:
        """Return why a file contains no digit; None if it contains one."""
        return self._errors.get(self._files[path][1])

    def images(self, paths: Iterable[str]) -> Tensor:
        """Return the digits (N, 28, 28) of files."""
        rows = torch.tensor([self._rows[self._files[path][1]] for path in paths], dtype=torch.long)
        images = self._all_images()
        is_whole = len(rows) == len(images) and torch.equal(rows, torch.arange(len(rows)))
        return images if is_whole else images[rows]

    def _all_images(self) -> Tensor:
        new = [torch.from_numpy(np.stack(self._new))] if self._new else []
        return torch.cat([self._stored, *new]) if new else self._stored

    def save(self, paths: Iterable[str]) -> None:
        """Store the results of these files, and forget all others."""
        if self.problem is not None:
            return
        files = {path: self._files[path] for path in paths if path in self._files}
        digests = list(dict.fromkeys(digest for _, digest in files.values()))
        places = {digest: place for place, digest in enumerate(digests)}
        rows = torch.tensor([self._rows.get(digest, -1) for digest in digests], dtype=torch.long)
        images = self._all_images()[rows[rows >= 0]]
        errors = [self._errors.get(digest) for digest in digests]
        text = json.dumps([list(files), errors]).encode()
        states = [[*state, places[digest]] for state, digest in files.values()]
        tensors = {
            "images": images,
            "digests": _as_tensor(b"".join(digests)),
            "states": torch.tensor(states, dtype=torch.long).view(-1, 4),
            "texts": _as_tensor(text),
        }
        self._write(tensors)

    def _write(self, tensors: dict[str, Tensor]) -> None:
        from safetensors.torch import save

        metadata = {"version": _version(), "checksum": _checksum(tensors)}
        try:
            write_atomically(save(tensors, metadata), self.path)
            _delete_oldest(self.path)
        except OSError as error:
            self.problem = error.strerror or str(error)

    def _load(self) -> None:
        from safetensors import safe_open

        with safe_open(self.path, "pt") as file:
            metadata = file.metadata() or {}
            # The tensors are memory-mapped.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata != {"version": _version(), "checksum": _checksum(tensors)}:
            return
        paths, reasons = json.loads(tensors["texts"].numpy().tobytes())
        joined = tensors["digests"].numpy().tobytes()
        digests = [joined[start : start + 32] for start in range(0, len(joined), 32)]
        files = {
            path: (FileState(*state), digests[place])
            for path, (*state, place) in zip(paths, tensors["states"].tolist(), strict=True)
        }
        known = [digest for digest, reason in zip(digests, reasons, strict=True) if reason is None]
        images = tensors["images"]
        if images.dtype != torch.uint8 or images.shape != (len(known), SIZE, SIZE):
            return
        self._files, self._stored = files, images
        self._rows = {digest: row for row, digest in enumerate(known)}
        self._errors = {
            digest: str(reason)
            for digest, reason in zip(digests, reasons, strict=True)
            if reason is not None
        }
        os.utime(self.path)  # for `_delete_oldest`


def _version() -> str:
    return f"{_FORMAT}.{mnist_format.VERSION}"


def _as_tensor(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()


def _delete_oldest(newest: Path) -> None:
    """Delete the caches that were not used for the longest time, down to the limit."""
    caches = sorted(newest.parent.glob("*.safetensors"), key=lambda path: -path.stat().st_mtime)
    total = 0
    for path in caches:
        total += path.stat().st_size
        if total > MAX_CACHE_BYTES and path != newest:
            path.unlink(missing_ok=True)
