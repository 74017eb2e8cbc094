"""Files that are written whole or not at all."""

import os
from pathlib import Path


def write_atomically(content: bytes, path: Path) -> None:
    """Write a file so that `path` holds either all of `content` or what it held before.

    The new file is made beside its target, flushed to the disk, and then renamed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:  # a full disk says neither which nor where
        raise type(error)(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Bring a renaming to the disk: the name is the folder's, not the file's."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
