"""The table of runs: a row for each `summary.json`."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import markdown_table, percent, printable


class RunRow(NamedTuple):
    """A row in the table of runs; unknown values are None."""

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


NEWEST, BEST = "newest", "best"
_DESCENDING = ("val_accuracy", "test_accuracy")
# The names of columns in `summary.json`, if they differ.
_FACTS = {"val_accuracy": "val/accuracy", "test_accuracy": "test/accuracy"}
_FACTS |= {"seconds": "fit_seconds"}
_ENTRIES = [_FACTS.get(name, name) for name in RunRow._fields if name != "run"]


def read_row(run: Run) -> RunRow:
    """Read the row of a run from its `summary.json`; values may be missing."""
    summary = run.summary(*_ENTRIES)
    network, state = summary.get("network"), summary.get("state", "unknown")
    with suppress(OSError):  # the folder is read-only
        if state == "running" and not run.is_locked():  # left by a process that was killed
            state = "interrupted"
    name = network["class_path"].rsplit(".", 1)[-1] if network else None
    facts: list[Any] = [summary.get(entry) for entry in _ENTRIES]
    return RunRow(run.folder.name, *facts)._replace(network=name, state=state)


def sort_rows(rows: Sequence[RunRow], order: str) -> list[RunRow]:
    """Sort rows, which are oldest first; rows without a value come last."""
    if order == "run":
        return list(rows)
    if order == NEWEST:
        return list(reversed(rows))
    column = "val_accuracy" if order == BEST else order
    known = [row for row in rows if getattr(row, column) is not None]
    known.sort(key=lambda row: getattr(row, column), reverse=column in _DESCENDING)
    return known + [row for row in rows if getattr(row, column) is None]


# The headings of a formatted table. Text is aligned to the left, numbers to the right.
_HEADINGS = (
    *("run", "data set", "network", "parameters", "seed", "epochs"),
    *("val", "test", "time", "state"),
)
_SIDES = "<<<>>>>>><"


def format_table(rows: Sequence[RunRow]) -> str:
    """Format rows with column headings, as aligned text."""
    cells = [_HEADINGS, *([printable(cell) for cell in row] for row in _cells(rows))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    formats = [f"{{:{side}{width}}}" for side, width in zip(_SIDES, widths, strict=True)]
    return "\n".join("  ".join(formats).format(*row).rstrip() for row in cells)


def format_markdown(rows: Sequence[RunRow]) -> str:
    """Format rows with column headings, as a Markdown table."""
    return markdown_table(_HEADINGS, _cells(rows), _SIDES)


def _cells(rows: Sequence[RunRow]) -> list[tuple[str, ...]]:
    return [
        (
            run.run.removeprefix("version_"),
            run.dataset or "?",
            run.network or "?",
            "" if run.parameters is None else f"{run.parameters:,}",
            *("" if number is None else str(number) for number in (run.seed, run.epochs)),
            percent(run.val_accuracy, missing=""),
            percent(run.test_accuracy, missing=""),
            _duration(run.seconds),
            run.state,
        )
        for run in rows
    ]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02} h"
