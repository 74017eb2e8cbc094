"""Your own images as a data set: a folder with a subfolder for each label."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mnist_lightning.data.datasets import DigitData
from mnist_lightning.errors import UserError
from mnist_lightning.files import walk
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.text import printable

LONGEST = 3  # digits of a label
MAX_LABELS = 200
SHOWN = 5  # unreadable files are named up to so many


def load_folder(folder: Path, test_share: float) -> tuple[DigitData, str | None]:
    """Read `folder/LABEL/anything.png`, each picture brought to MNIST's form.

    Which pictures are for testing is told by the digits' own pixels: it stays the same when the
    folder grows, and two copies of a picture are on the same side.

    Args:
        folder: holds a folder for each label, named by its number.
        test_share: of the pictures, 0 to 1.

    Returns:
        The data, and what to say of what is left out or missing; None where nothing is.

    Raises:
        UserError: there is none.
    """
    labels = _labels(folder)
    pictures: list[NDArray[np.uint8]] = []
    classes: list[int] = []
    skipped: list[str] = []
    for path in (file for label in labels for file in walk(label)):
        if not path.is_file() or path.name.startswith("."):
            continue
        try:
            pictures.append(mnist_format.from_picture(mnist_format.read(path)))
            classes.append(int(path.relative_to(folder).parts[0]))
        except (OSError, ValueError) as error:
            skipped.append(printable(f"{path.relative_to(folder)} ({error})"))
    if not pictures:
        raise UserError(f"{folder}: none of its files is a picture of a digit", status=2)
    notices = []
    if skipped:
        what = f"{len(skipped)} of {len(skipped) + len(pictures)} files in {folder} are skipped"
        more = f", and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else ""
        notices.append(f"{what}: {', '.join(skipped[:SHOWN])}{more}")
    if beside := [path for path in folder.iterdir() if path not in labels and path.name[0] != "."]:
        notices.append(f"not in a label's folder, and left out: {_listed(_names(beside))}")
    if gaps := sorted(set(range(max(classes))) - set(classes)):
        notices.append(f"no picture of {_listed([str(label) for label in gaps])}")
    ink, true = torch.from_numpy(np.stack(pictures)), torch.tensor(classes)
    test = torch.tensor([_place(picture) < test_share for picture in pictures])
    data = DigitData("folder", ink[~test], true[~test], ink[test], true[test])
    return data, "; ".join(notices) or None


def _labels(folder: Path) -> list[Path]:
    """The labels' own folders, by number; a UserError where there is none."""
    named = [] if not folder.is_dir() else [path for path in folder.iterdir() if path.is_dir()]
    labels = [path for path in named if path.name.isdecimal() and len(path.name) <= LONGEST]
    if not labels:
        has = f"has {_listed(_names(named)) or 'no folder'}"
        raise UserError(
            f"{folder}: {has if folder.is_dir() else 'no folder'}; your own pictures lie in a "
            f"folder for each label, named by its number, say {folder}/3/anything.png; "
            "see --data.folder",
            status=2,
        )
    if int(max((path.name for path in labels), key=int)) >= MAX_LABELS:
        raise UserError(f"{folder}: labels go up to {MAX_LABELS - 1}", status=2)
    if links := [path for path in labels if path.is_symlink()]:
        raise UserError(f"{links[0]} is a link; the pictures have to be in {folder} itself", 2)
    return sorted(labels, key=lambda path: int(path.name))


def _place(ink: NDArray[np.uint8]) -> float:
    """A number in [0, 1) that hangs on the picture alone."""
    return int.from_bytes(hashlib.sha256(ink.tobytes()).digest()[:8]) / 2**64


def _names(paths: list[Path]) -> list[str]:
    return sorted(printable(path.name) + "/" * path.is_dir() for path in paths)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + " …" * (len(names) > SHOWN)
