"""The table of runs: a row for each `summary.json`."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from mnist_lightning.errors import UserError
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import printable


class Standing(NamedTuple):
    """A run in the table of runs; None where nothing is known."""

    run: str
    dataset: str | None
    network: str | None
    parameters: int | None
    seed: int | None
    epochs: int | None
    val_accuracy: float | None
    test_accuracy: float | None
    seconds: float | None
    state: str
    started: str | None


LONGEST = 200  # letters of a name in a table
NEWEST, BEST = "newest", "best"
_GREATEST_FIRST = ("val_accuracy", "test_accuracy")


def standing(run: Run) -> Standing:
    """Read what a run's `summary.json` says; anything may be missing, or nonsense."""
    summary = run.summary()
    network = summary.get("network")
    path = network.get("class_path") if isinstance(network, dict) else None
    return Standing(
        run=run.folder.name,
        dataset=_text(summary.get("dataset")),
        network=_text(path.rsplit(".", 1)[-1]) if isinstance(path, str) else None,
        parameters=_count(summary.get("parameters")),
        seed=_count(summary.get("seed")),
        epochs=_count(summary.get("epochs")),
        val_accuracy=_number(summary.get("val/accuracy")),
        test_accuracy=_number(summary.get("test/accuracy")),
        seconds=_number(summary.get("fit_seconds")),
        state=_state(run, summary),
        started=_text(summary.get("started")),
    )


def _state(run: Run, summary: dict[str, Any]) -> str:
    """How a run stands: its process may have been killed before it could say so."""
    state = _text(summary.get("state")) or "unknown"
    if state != "running":
        return state
    try:
        with run.lock(patience=0):
            return "interrupted"
    except (UserError, OSError):
        return state


def ordered(rows: Sequence[Standing], order: str) -> list[Standing]:
    """Sort rows, oldest first as they come; where a value is missing they come last."""
    if order == "run":
        return list(rows)
    if order == NEWEST:
        return list(reversed(rows))
    column = "val_accuracy" if order == BEST else order
    known = [each for each in rows if getattr(each, column) is not None]
    known.sort(key=lambda each: getattr(each, column), reverse=column in _GREATEST_FIRST)
    return known + [each for each in rows if getattr(each, column) is None]


def table(rows: Sequence[Standing]) -> str:
    """Write rows under their heads, for people to read."""
    cells = [("run", "data set", "network", "parameters", "seed", "epochs", "val", "test", "time")]
    cells += [
        (
            printable(each.run.removeprefix("version_")),
            each.dataset or "?",
            each.network or "?",
            "" if each.parameters is None else f"{each.parameters:,}",
            "" if each.seed is None else str(each.seed),
            "" if each.epochs is None else str(each.epochs),
            _percent(each.val_accuracy),
            _percent(each.test_accuracy),
            _duration(each.seconds),
        )
        for each in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    states = ["state", *(each.state for each in rows)]
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if place < _WORDS else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + f"  {state}"
        for row, state in zip(cells, states, strict=True)
    )


_WORDS = 3  # the first columns are words, the others numbers


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02} h"


def _text(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    return printable(value)[:LONGEST]


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if known else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
