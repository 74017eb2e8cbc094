"""The directory of corrected digits: save, list, count and remove them."""

import base64
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock

from pydantic import BaseModel

from mnist_lightning.deployment.problems import ProblemError
from mnist_lightning.errors import UserError
from mnist_lightning.files import read_bounded, write_atomically
from mnist_lightning.preprocessing.image_limits import IMAGE_SUFFIXES
from mnist_lightning.preprocessing.mnist_format import DigitImage, png

MAX_CORRECTIONS = 10_000  # images with a label
MAX_LISTED = 60
MAX_BYTES = 10_000  # of a listed image; 28x28 pixels have at most 1 kB as PNG
LABELS = range(10)
NAME = re.compile(r"([0-9])/([0-9a-f]{16}\.png)")  # of an image that the server has saved

_changing = Lock()


class Correction(BaseModel):
    """A saved image: its path below the directory for corrections."""

    kept: str


class ListedCorrection(BaseModel):
    """A saved image: its path below the directory, its true label and its pixels."""

    kept: str
    label: int
    image: str


class CorrectionList(BaseModel):
    """The number of saved images, and the newest of those that the server has saved."""

    total: int
    newest: list[ListedCorrection]


def save_correction(directory: Path, label: int, digit: DigitImage) -> str:
    """Save the 28x28 input of the network, rather than the uploaded file; return the path.

    A new label replaces an earlier one of the same image.

    Raises:
        ProblemError: it cannot be saved.
    """
    subdirectory = directory / str(label)
    name = f"{hashlib.sha256(digit.ink.tobytes()).hexdigest()[:16]}.png"
    try:
        if subdirectory.is_symlink():
            raise ProblemError(507, "not_kept", f"the folder {label} is a symbolic link")
        subdirectory.mkdir(parents=True, exist_ok=True)
        if sum(1 for _ in subdirectory.iterdir()) >= MAX_CORRECTIONS:
            message = f"limit reached: {MAX_CORRECTIONS:,} images with label {label}"
            raise ProblemError(507, "full", message)
        with _changing:
            write_atomically(png(digit.ink), subdirectory / name)
            for other in LABELS:
                if other != label:
                    _remove(directory / str(other) / name)
    except OSError as error:
        message = f"the server could not save the image: {(error.strerror or str(error)).lower()}"
        raise ProblemError(507, "not_kept", message) from None
    return f"{label}/{name}"


def remove_correction(directory: Path, kept: str) -> None:
    """Remove an image that the server has saved.

    Raises:
        ProblemError: there is no such image, or it cannot be removed.
    """
    match = NAME.fullmatch(kept)
    try:
        with _changing:
            if match is None or not _remove(directory / match[1] / match[2]):
                raise ProblemError(404, "unknown_correction", "there is no such corrected digit")
    except OSError as error:
        message = f"the server could not remove it: {(error.strerror or str(error)).lower()}"
        raise ProblemError(507, "not_removed", message) from None


def _remove(path: Path) -> bool:
    """Remove a file, but not through a link; return whether it existed."""
    if path.parent.is_symlink() or not path.is_file():
        return False
    path.unlink()
    return True


def _saved_files(directory: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the visible images with a label."""
    for label in LABELS:
        folder = directory / str(label)
        if folder.is_symlink():
            continue
        with suppress(OSError), os.scandir(folder) as entries:
            yield from filter(_is_image, entries)


def _is_image(entry: os.DirEntry[str]) -> bool:
    visible = not entry.name.startswith(".") and entry.name.lower().endswith(IMAGE_SUFFIXES)
    return visible and entry.is_file()


def count_corrections(directory: Path) -> int:
    """Count the images with a label, also those that the user has put there."""
    return sum(1 for _ in _saved_files(directory))


def list_corrections(directory: Path) -> CorrectionList:
    """List the newest images that the server has saved."""
    found: list[tuple[int, str]] = []
    total = 0
    for entry in _saved_files(directory):
        total += 1
        kept = "/".join(Path(entry.path).parts[-2:])
        with suppress(OSError):
            if NAME.fullmatch(kept) and not entry.is_symlink():
                found.append((entry.stat().st_mtime_ns, kept))
    listed = []
    for _, kept in sorted(found, reverse=True)[:MAX_LISTED]:
        with suppress(OSError, UserError):  # it was removed meanwhile
            content = base64.b64encode(read_bounded(directory / kept, MAX_BYTES)).decode()
            image = f"data:image/png;base64,{content}"
            listed.append(ListedCorrection(kept=kept, label=int(kept[0]), image=image))
    return CorrectionList(total=total, newest=listed)
