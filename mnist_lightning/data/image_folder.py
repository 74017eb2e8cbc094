"""Your own images as a data set: a folder with a subfolder for each label."""

import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mnist_lightning.data.datasets import DigitData
from mnist_lightning.data.folder_cache import FileState, FolderCache, Result
from mnist_lightning.errors import UserError
from mnist_lightning.files import walk
from mnist_lightning.networks.registry import MAX_CLASSES
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.extraction_pool import ExtractionPool
from mnist_lightning.preprocessing.extraction_process import (
    DigitExtractor,
    ExtractionFailedError,
    NoDigitError,
    UnreadableError,
)
from mnist_lightning.text import printable, shorten

MAX_DIGITS = 3  # of a label
MAX_LISTED = 5  # files or folders in a message
SAVE_SECONDS = 60.0  # a killed process loses at most this much work
SAVE_SHARE = 0.05  # of the time; for millions of images, results are saved less often


class _ImageFile(NamedTuple):
    path: str  # in the folder
    label: int
    state: FileState
    identity: tuple[int, int]  # the same for links to one file


class _Reading(NamedTuple):
    file: _ImageFile
    result: Result
    digest: bytes | None = None  # of the content; None if another attempt may give another result


def load_folder(folder: Path, test_share: float) -> tuple[DigitData, str | None]:
    """Read `folder/LABEL/anything.png`, each image converted to MNIST's format.

    Images are read on all cores. The results are cached: only files that were added or changed
    since the last time are read again.

    The split into training and test images depends only on the pixels of each digit: it stays the
    same when images are added, and two copies of an image are in the same part.

    Args:
        folder: contains a folder for each label, named by its number.
        test_share: fraction of test images, 0 to 1.

    Returns:
        The data, and a notice about skipped files and missing labels; None if there are none.

    Raises:
        UserError: there are no images.
    """
    labels = _labels(folder)
    files = [file for label in labels for file in _list_files(label)]
    with FolderCache(folder) as cache:
        failed = _read_new_files(folder, files, cache)
        errors = [failed.get(file.path) or cache.error(file.path) for file in files]
        digits = [file for file, error in zip(files, errors, strict=True) if error is None]
        if not digits:
            raise UserError(f"{folder}: no file is an image of a digit; add images", status=2)
        ink = cache.images(file.path for file in digits)
    skipped = [
        shorten(printable(f"{file.path} ({error})"))
        for file, error in zip(files, errors, strict=True)
        if error is not None
    ]
    notices = []
    if cache.problem is not None:
        notices.append(f"every start reads all images: {cache.path.parent}: {cache.problem}")
    if skipped:
        summary = f"{len(skipped)} of {len(files)} files in {folder} are skipped"
        more = f", and {len(skipped) - MAX_LISTED} more" if len(skipped) > MAX_LISTED else ""
        notices.append(f"{summary}: {', '.join(skipped[:MAX_LISTED])}{more}")
    if others := [path for path in folder.iterdir() if path not in labels and path.name[0] != "."]:
        notices.append(f"ignored, not in a label's folder: {_shorten(_names(others))}")
    true = torch.tensor([file.label for file in digits])
    if missing := sorted(set(range(int(true.max()))) - set(true.unique().tolist())):
        notices.append(f"no images of {_shorten([str(label) for label in missing])}")
    test = torch.tensor([_hash(image) < test_share for image in ink.numpy()])
    data = DigitData("folder", ink[~test], true[~test], ink[test], true[test])
    return data, "; ".join(notices) or None


def _list_files(label: Path) -> list[_ImageFile]:
    """List the visible files below the folder of a label, in order."""
    start = len(str(label)) - len(label.name)
    files = []
    for entry in walk(label):
        with suppress(OSError):  # it was removed meanwhile, or is a link to itself
            if entry.name[0] != "." and entry.is_file():
                status = entry.stat()
                identity = status.st_dev, status.st_ino
                path, state = entry.path[start:], FileState.of(status)
                files.append(_ImageFile(path, int(label.name), state, identity))
    return files


def _read_new_files(
    folder: Path, files: Sequence[_ImageFile], cache: FolderCache
) -> dict[str, str]:
    """Add the results of new and changed files to the cache.

    Returns:
        The reasons, by path, why files could not be read this time.
    """
    new = [file for file in files if not cache.has(file.path, file.state)]
    if not new:
        return {}
    paths = [file.path for file in files]
    failed: dict[str, str] = {}
    readings: dict[tuple[int, int], _Reading] = {}

    def read(extractor: DigitExtractor, file: _ImageFile) -> _Reading:
        if file.identity not in readings:
            readings[file.identity] = _read(extractor, folder, file, cache)
        return readings[file.identity]._replace(file=file)

    due = time.monotonic() + SAVE_SECONDS  # for saving
    try:
        with ExtractionPool() as pool:
            for file, result, digest in pool.map(read, new, f"reading {folder}", len(new)):
                if digest is None:
                    failed[file.path] = str(result)
                else:
                    cache.add(file.path, file.state, digest, result)
                if (now := time.monotonic()) > due:
                    cache.save(paths)
                    seconds = time.monotonic() - now
                    due = now + seconds + max(SAVE_SECONDS, seconds / SAVE_SHARE)
    finally:
        cache.save(paths)
    return failed


def _read(
    extractor: DigitExtractor, folder: Path, file: _ImageFile, cache: FolderCache
) -> _Reading:
    """Read a file, unless another one has the same content."""
    try:
        content = mnist_format.read_content(folder / file.path)
        digest = hashlib.sha256(content).digest()
        result = cache.result_of_content(digest)
        if result is None:
            result = extractor.find_digits(content, False).digits[0].ink
    except (NoDigitError, UnreadableError) as error:
        is_final = not isinstance(error, ExtractionFailedError)
        return _Reading(file, str(error), digest if is_final else None)
    except (OSError, ValueError) as error:
        return _Reading(file, str(error))
    return _Reading(file, result, digest)


def _labels(folder: Path) -> list[Path]:
    """Return the label folders in the order of their numbers; raise a UserError if none exists."""
    folders = [] if not folder.is_dir() else [path for path in folder.iterdir() if path.is_dir()]
    labels = [path for path in folders if path.name.isdecimal() and len(path.name) <= MAX_DIGITS]
    if not labels:
        content = f"contains {_shorten(_names(folders)) or 'no folder'}"
        raise UserError(
            f"{folder}: {content if folder.is_dir() else 'no such folder'}; put your images in one "
            f"folder per label, for example {folder}/3/anything.png for label 3; see --data.folder",
            status=2,
        )
    if int(max((path.name for path in labels), key=int)) >= MAX_CLASSES:
        limit = f"the largest allowed label is {MAX_CLASSES - 1}"
        raise UserError(f"{folder}: {limit}; rename or remove other folders", status=2)
    if links := [path for path in labels if path.is_symlink()]:
        raise UserError(f"{links[0]} is a symbolic link; replace it with a folder of images", 2)
    return sorted(labels, key=lambda path: int(path.name))


def _hash(ink: NDArray[np.uint8]) -> float:
    """Return a number in [0, 1) that depends only on the pixels."""
    return int.from_bytes(hashlib.sha256(ink.tobytes()).digest()[:8]) / 2**64


def _names(paths: list[Path]) -> list[str]:
    return sorted(printable(path.name) + "/" * path.is_dir() for path in paths)


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:MAX_LISTED]) + " …" * (len(names) > MAX_LISTED)
