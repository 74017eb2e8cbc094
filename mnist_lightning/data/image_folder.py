"""Your own images as a data set: a folder with a subfolder for each label."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mnist_lightning.data.datasets import DigitData
from mnist_lightning.errors import UserError
from mnist_lightning.files import walk
from mnist_lightning.networks.registry import MAX_CLASSES
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.extraction_process import DigitExtractor
from mnist_lightning.text import printable, shorten

MAX_DIGITS = 3  # of a label
MAX_LISTED = 5  # files or folders in a message


def load_folder(folder: Path, test_share: float) -> tuple[DigitData, str | None]:
    """Read `folder/LABEL/anything.png`, each image converted to MNIST's format.

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
    images: list[NDArray[np.uint8]] = []
    classes: list[int] = []
    skipped: list[str] = []
    read_before: dict[tuple[int, int], NDArray[np.uint8]] = {}
    with DigitExtractor() as extractor:
        for path in (file for label in labels for file in walk(label)):
            if not path.is_file() or path.name.startswith("."):
                continue
            try:
                identity = path.stat().st_dev, path.stat().st_ino  # links may name the same file
                if identity not in read_before:
                    content = mnist_format.read_content(path)
                    read_before[identity] = extractor.find_digits(content, False).digits[0].ink
                images.append(read_before[identity])
                classes.append(int(path.relative_to(folder).parts[0]))
            except (OSError, ValueError) as error:
                skipped.append(shorten(printable(f"{path.relative_to(folder)} ({error})")))
    if not images:
        raise UserError(f"{folder}: no file is an image of a digit; add images", status=2)
    notices = []
    if skipped:
        summary = f"{len(skipped)} of {len(skipped) + len(images)} files in {folder} are skipped"
        more = f", and {len(skipped) - MAX_LISTED} more" if len(skipped) > MAX_LISTED else ""
        notices.append(f"{summary}: {', '.join(skipped[:MAX_LISTED])}{more}")
    if others := [path for path in folder.iterdir() if path not in labels and path.name[0] != "."]:
        notices.append(f"ignored, not in a label's folder: {_shorten(_names(others))}")
    if missing := sorted(set(range(max(classes))) - set(classes)):
        notices.append(f"no images of {_shorten([str(label) for label in missing])}")
    ink, true = torch.from_numpy(np.stack(images)), torch.tensor(classes)
    test = torch.tensor([_hash(image) < test_share for image in images])
    data = DigitData("folder", ink[~test], true[~test], ink[test], true[test])
    return data, "; ".join(notices) or None


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
