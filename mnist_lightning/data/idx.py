"""Read files in MNIST's format, IDX: memory-mapped, so that all processes share one copy.

An IDX file contains two zero bytes, the element type, the number of dimensions, each dimension as
a big-endian 32-bit number, and then the elements.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ELEMENTS: dict[int, np.dtype[Any]] = {8: np.dtype(np.uint8), 12: np.dtype(">i4")}
_MAX_DIMENSIONS = 3


def map_file(path: Path) -> NDArray[np.uint8]:
    """Map the bytes of a file into memory: they are read when they are used.

    The array can be changed, but this does not change the file.

    Raises:
        OSError: the file cannot be opened.
    """
    if path.stat().st_size == 0:  # it cannot be mapped
        return np.zeros(0, np.uint8)
    return np.memmap(path, np.uint8, mode="c")


def parse(content: NDArray[np.uint8]) -> NDArray[Any]:
    """Return the array in the bytes of an IDX file, without copying it.

    Raises:
        ValueError: they are not those of an IDX file.
    """
    count = int(content[3]) if len(content) > 3 else 0
    element = _ELEMENTS.get(int(content[2])) if count else None
    start = 4 + 4 * count
    if element is None or content[:2].any() or count > _MAX_DIMENSIONS or len(content) < start:
        raise ValueError("not an IDX file of bytes or 32-bit integers")
    shape = [int(size) for size in content[4:start].view(">u4")]
    expected = start + math.prod(shape) * element.itemsize
    if len(content) != expected:
        raise ValueError(f"{len(content):,} bytes, expected {expected:,}")
    elements: NDArray[Any] = content[start:].view(element)
    return elements.reshape(shape)


def _read(path: Path) -> NDArray[Any]:
    try:
        return parse(map_file(path))
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def read_images(path: Path) -> Tensor:
    """Map images (N, 28, 28) uint8.

    Raises:
        ValueError: the file does not contain them.
        OSError: it cannot be opened.
    """
    images = _read(path)
    if images.shape[1:] != (28, 28) or images.dtype != np.uint8:
        raise ValueError(f"{path.name} contains {images.shape}, expected images (N, 28, 28)")
    return torch.from_numpy(images)


def read_labels(path: Path, count: int, classes: int) -> Tensor:
    """Read labels (N,) int64, from 0 to `classes` - 1, one for each of `count` images.

    In a file with several numbers for each image, as QMNIST's, the first one is the label.

    Raises:
        ValueError: the file does not contain them.
        OSError: it cannot be opened.
    """
    labels = _read(path)
    if labels.ndim > 2 or len(labels) != count or (count and labels.size == 0):
        problem = f"{path.name} contains {labels.shape}"
        raise ValueError(f"{problem}, expected {count:,} labels")
    if count == 0:
        return torch.zeros(0, dtype=torch.long)
    column = labels if labels.ndim == 1 else labels[:, 0]
    if column.min() < 0 or column.max() >= classes:
        found = f"labels from {column.min()} to {column.max()}"
        raise ValueError(f"{path.name}: {found}, expected 0 to {classes - 1}")
    return torch.from_numpy(column.astype(np.int64))
