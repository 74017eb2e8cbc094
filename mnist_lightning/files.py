"""Files that are written whole or not at all, and YAML that is read or explained."""

import os
from pathlib import Path
from threading import get_ident
from typing import Any

import yaml

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


def move_aside(path: Path) -> Path:
    """Rename a damaged file or folder, never over another; return its new name."""
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.damaged-{number}")):
        number += 1
    path.rename(aside)
    return aside


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        UserError: it is none, or cannot be read.
    """
    try:
        return yaml.safe_load(path.read_text())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        raise UserError(f"{path} is no YAML{where}: {error.problem}", status=2) from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}", status=2) from None
    except (ValueError, yaml.YAMLError):
        raise UserError(f"{path} is no text", status=2) from None


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
