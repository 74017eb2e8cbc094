"""Write and read the snapshots of a run: what its network is like after each epoch.

A snapshot may come from elsewhere: a file that is too large, or has any invalid value, is ignored.
This module does not import torch, so that a server can show a run without this import.
"""

import base64
import json
import os
import re
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mnist_lightning.errors import UserError
from mnist_lightning.files import read_bounded, remove, write_atomically

MAX_BYTES = 60_000  # the largest snapshot has 24 kB, a typical one 3 kB
MAX_FILTERS = 32
MAX_FILTER_SIDE = 32
MAX_FILTER_VALUES = 10_000  # of all filters together
MAX_CLASSES = 32  # of a confusion matrix
MAX_PROBABILITIES = 200  # the most classes that a data set may have
MAX_FILES = 100_000  # that are listed
MAX_EPOCH = 10**9 - 1  # nine digits
MAX_COUNT = 2**53  # the largest integer that JavaScript represents exactly
MAX_WEIGHT = 1e12
PIXELS = 28 * 28
MAX_EXACT_DIGITS = 3  # up to epoch 999, each epoch has a file

Part = Literal["validation", "training"]
_NAME = re.compile(r"epoch_([0-9]{4,9})\.json")


class Filters(NamedTuple):
    """Weights of the first layer, as images.

    Attributes:
        total: the number of filters of the layer, of which the first ones follow.
        shape: (N, H, W).
        scale: the largest absolute weight of these.
        values: (N, H, W) int8; a weight is value * scale / 127.
    """

    total: int
    shape: tuple[int, int, int]
    scale: float
    values: bytes


class Digit(NamedTuple):
    """An image of the data set, the same in all snapshots of a run.

    Attributes:
        pixels: (28, 28) uint8, 0 for paper.
        label: its true label.
        part: the part of the data set that it belongs to.
        probabilities: of each class; None if they are not finite.
    """

    pixels: bytes
    label: int
    part: Part
    probabilities: list[float] | None


class Snapshot(NamedTuple):
    """The state of the network after an epoch: of the weights that are validated and saved.

    Attributes:
        epoch: the number of the epoch; 0 is before the training.
        step: the number of optimizer steps so far.
        filters: of the first layer; None if its weights are not images, or not finite.
        digit: a digit and its prediction.
        confusion: counts [true][predicted] of the validation set; None without a validation at the
            end of the epoch, or if there are many classes.
    """

    epoch: int
    step: int
    filters: Filters | None
    digit: Digit
    confusion: list[list[int]] | None


def snapshot_path(folder: Path, epoch: int) -> Path:
    """Return the path of the snapshot of an epoch."""
    return folder / f"epoch_{epoch:04}.json"


def is_kept(epoch: int) -> bool:
    """Return whether the snapshot of an epoch stays, to limit the number of files.

    All of epochs 0 to 999 stay, then every tenth, from epoch 10,000 on every hundredth, and so on.
    A run of a million epochs keeps 3,700 files.
    """
    distance: int = 10 ** max(0, len(str(epoch)) - MAX_EXACT_DIGITS)
    return epoch % distance == 0


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Write the snapshot of an epoch; remove that of the epoch before, if it is not to be kept."""
    content: dict[str, Any] = snapshot._asdict()
    content["digit"] = _encode(snapshot.digit)
    content["filters"] = _encode(snapshot.filters) if snapshot.filters is not None else None
    folder.mkdir(exist_ok=True)
    text = json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n"
    write_atomically(text.encode(), snapshot_path(folder, snapshot.epoch))
    earlier = snapshot.epoch - 1
    if not is_kept(earlier):
        remove(snapshot_path(folder, earlier))


def _encode(part: Filters | Digit) -> dict[str, Any]:
    values: dict[str, Any] = part._asdict()
    coded = {name: base64.b64encode(v).decode() for name, v in values.items() if type(v) is bytes}
    return values | coded


def list_epochs(folder: Path) -> list[int]:
    """Return the epochs that have a snapshot, in order."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in islice(entries, MAX_FILES)]
    epochs = [int(match[1]) for name in names if (match := _NAME.fullmatch(name))]
    return sorted(set(epochs))


def remove_later_snapshots(folder: Path, epoch: int) -> None:
    """Remove the snapshots after an epoch, from which the run is resumed."""
    for later in list_epochs(folder):
        if later > epoch:
            remove(snapshot_path(folder, later))


def read_snapshot(folder: Path, epoch: int) -> Snapshot | None:
    """Read the snapshot of an epoch; return None if it is missing or damaged."""
    try:
        content = json.loads(read_bounded(snapshot_path(folder, epoch), MAX_BYTES))
        if _count(content["epoch"], MAX_EPOCH) != epoch:
            return None
        return Snapshot(
            epoch,
            _count(content["step"]),
            _read_filters(content["filters"]),
            _read_digit(content["digit"]),
            _read_confusion(content["confusion"]),
        )
    except (OSError, UserError, ValueError, TypeError, LookupError, RecursionError):
        return None


def _read_filters(content: Any) -> Filters | None:
    if content is None:
        return None
    count, height, width = (_count(size, MAX_FILTER_SIDE) for size in _list(content["shape"], 3))
    if count > MAX_FILTERS or not 0 < count * height * width <= MAX_FILTER_VALUES:
        raise ValueError(content["shape"])
    values = _bytes(content["values"], count * height * width)
    scale = _number(content["scale"], MAX_WEIGHT)
    return Filters(_count(content["total"]), (count, height, width), scale, values)


def _read_digit(content: Any) -> Digit:
    probabilities = content["probabilities"]
    if probabilities is not None:
        probabilities = [_number(each, 1) for each in _list(probabilities, MAX_PROBABILITIES)]
    part = content["part"]
    if part not in ("validation", "training"):
        raise ValueError(part)
    label = _count(content["label"], MAX_PROBABILITIES)
    return Digit(_bytes(content["pixels"], PIXELS), label, part, probabilities)


def _read_confusion(content: Any) -> list[list[int]] | None:
    if content is None:
        return None
    rows = [[_count(each) for each in _list(row, MAX_CLASSES)] for row in _list(content)]
    if any(len(row) != len(rows) for row in rows):
        raise ValueError("the matrix is not square")
    return rows


def _list(value: Any, limit: int = MAX_CLASSES) -> list[Any]:
    if not isinstance(value, list) or not 0 < len(value) <= limit:
        raise ValueError(value)
    return value


def _count(value: Any, limit: int = MAX_COUNT) -> int:
    if type(value) is not int or not 0 <= value <= limit:
        raise ValueError(value)
    return value


def _number(value: Any, limit: float) -> float:
    if type(value) not in (int, float) or not 0 <= value <= limit:  # also false for NaN
        raise ValueError(value)
    return float(value)


def _bytes(value: Any, count: int) -> bytes:
    content = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    if len(content) != count:
        raise ValueError(count)
    return content
