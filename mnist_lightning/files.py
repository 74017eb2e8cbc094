"""Files that are written whole or not at all."""

import os
from pathlib import Path
from threading import get_ident

from mnist_lightning.errors import UserError


def write_atomically(content: bytes, path: Path) -> None:
    """Write a file so that `path` holds either all of `content` or what it held before.

    The new file is made beside its target, flushed to the disk, and then renamed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}.tmp")
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


def make_folder(folder: Path, option: str) -> None:
    """Make the folder that an option names, and find out whether files can be written to it.

    Raises:
        UserError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{option} {folder}: {reason}; name another folder") from None


def _flush_folder(folder: Path) -> None:
    """Bring a renaming to the disk: the name is the folder's, not the file's."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
