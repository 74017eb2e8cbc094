"""Read `summary.json`.

A summary may come from elsewhere. An entry of the wrong type, a NaN or an unknown entry is treated
as missing, and text is made printable: all commands can rely on the types.
"""

import json
import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from mnist_lightning.errors import UserError
from mnist_lightning.files import read_bounded
from mnist_lightning.text import printable

MAX_BYTES = 200_000  # a summary has 3 kB
MAX_TEXT_CHARS = 200
MAX_PATH_CHARS = 5_000
MAX_COUNT = 2**63
MAX_NUMBER = 1e12
MIN_TEMPERATURE = 0.01  # fitted temperatures are between 0.05 and 20
MAX_SLOPE = 1_000


def read_summary(path: Path, names: Iterable[str] = ()) -> dict[str, Any]:
    """Read the valid entries of a `summary.json`; none if it is missing or damaged.

    Args:
        path: the file.
        names: the entries to read, which takes less time; by default all.
    """
    try:
        content = _DECODER.decode(read_bounded(path, MAX_BYTES).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError, UserError):
        return {}
    entries = content if isinstance(content, dict) else {}
    values = {name: _READERS[name](entries.get(name)) for name in names or _READERS}
    return {name: value for name, value in values.items() if value is not None}


def _parse_int(text: str) -> int | None:
    return int(text) if len(text) <= len(str(MAX_COUNT)) else None


# `json.loads` would create a decoder for each file.
_DECODER = json.JSONDecoder(parse_int=_parse_int, parse_constant=lambda _: None)


def _text(value: Any, limit: int = MAX_TEXT_CHARS) -> str | None:
    return printable(value)[:limit] if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_COUNT
    return value if is_count else None


def _number(value: Any, low: float = -MAX_NUMBER, high: float = MAX_NUMBER) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and low <= value <= high else None


def _texts(value: Any) -> dict[str, str] | None:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        return None
    return {_text(name) or "": _text(each) or "" for name, each in value.items()}


def _network(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict) or not isinstance(value.get("class_path"), str):
        return None
    arguments = value.get("init_args")
    known = isinstance(arguments, dict) and _is_shallow(arguments)
    path = _text(value["class_path"])
    return {"class_path": path, "init_args": arguments if known else None}


def _is_shallow(value: Any, levels: int = 16) -> bool:
    """Return whether a JSON value is nested at most `levels` deep, and has only finite numbers."""
    if isinstance(value, float):
        return math.isfinite(value)
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_shallow(item, levels - 1) for item in items)


def _table(read: Callable[[Any], Any], names: str) -> dict[str, Callable[[Any], Any]]:
    return dict.fromkeys(names.split(), read)


# How the entries of a calibration are read, here and in the metadata of an exported file.
CALIBRATION: dict[str, Callable[[Any], float | None]] = {
    "temperature": partial(_number, low=MIN_TEMPERATURE, high=1 / MIN_TEMPERATURE),
    "digit_slope": partial(_number, low=0, high=MAX_SLOPE),
    "digit_offset": partial(_number, low=-MAX_SLOPE, high=MAX_SLOPE),
    "min_digit": partial(_number, low=0, high=1),
}


def read_calibration(entries: dict[str, Any]) -> dict[str, float] | None:
    """Return the entries of a calibration; None if there is none, or if one is not valid.

    A network of other classes than the digits has only a temperature.
    """
    given = {name: read(entries[name]) for name, read in CALIBRATION.items() if name in entries}
    valid = {name: value for name, value in given.items() if value is not None}
    complete = valid.keys() in ({"temperature"}, CALIBRATION.keys())
    return valid if complete and len(valid) == len(given) else None


_READERS = (
    _table(_text, "state started dataset checksum resume device commit tested_epoch")
    | _table(partial(_text, limit=MAX_PATH_CHARS), "init_from teacher")
    | _table(_network, "network")
    | _table(_texts, "versions extra_checksums")
    | _table(_count, "val_size split_seed train_size test_size parameters seed threads")
    | _table(_count, "epochs best_epoch test/correct test/total")
    | _table(partial(_number, low=0, high=1), "val/accuracy test/accuracy")
    | _table(_number, "val/loss test/loss fit_seconds epoch_seconds")
    | CALIBRATION
)
