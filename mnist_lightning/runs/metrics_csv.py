"""Write and read `metrics.csv`."""

import math
import os
import re
from pathlib import Path
from typing import NamedTuple

from mnist_lightning.errors import UserError
from mnist_lightning.files import read_bounded, rename_damaged, write_atomically
from mnist_lightning.text import say

METRICS_FILE = "metrics.csv"
MAX_METRICS_BYTES = 20_000_000  # 40,000 steps of 20 metrics need 8 MB
MAX_OWN_BYTES = 1_000_000_000  # of the user's own run
MAX_NON_ASCII_BYTES = 5_000_000  # non-ASCII text needs four bytes per character in memory
MAX_COLUMNS = 1_000
MAX_LINE_CHARS = 100_000
MAX_CELLS = 1_000_000
MAX_ROWS = 500_000

Row = dict[str, str]
KEYS = ("step", "dataset")  # the columns that are not metrics

_STEP = re.compile(r"[0-9]{1,18}")
NUMBER = re.compile(r"-?([0-9]+(\.[0-9]+)?(e[-+][0-9]{1,3})?|inf)|nan")


class _FileState(NamedTuple):
    """The state of a `metrics.csv`.

    Attributes:
        columns: of the file.
        final_bytes: size of the rows that do not change anymore.
        open_rows: the last row of the file, which may still change, and later rows.
    """

    columns: list[str]
    final_bytes: int
    open_rows: list[Row]


class MetricsFile:
    """`metrics.csv`: a row per step, a column per metric; new metrics add columns.

    Ctrl-C may interrupt a flush, and another flush may follow: the state of the file is replaced in
    one assignment.
    """

    def __init__(self, path: Path, dataset: str) -> None:
        self.path = path
        self.dataset = dataset
        rows = read_metrics(path, limited=False)
        self.last_steps = {  # of each metric
            tag: int(row["step"])
            for row in rows
            for tag, value in row.items()
            if value and tag not in KEYS
        }
        columns = list(rows[0]) if rows else list(KEYS)
        last = [{name: value for name, value in row.items() if value} for row in rows[-1:]]
        size = path.stat().st_size if path.exists() else 0
        self._file = _FileState(columns, size - len(_lines(columns, last)), last)

    def add(self, metrics: dict[str, float], step: int) -> None:
        """Add values to the row of `step`."""
        rows = self._file.open_rows
        if not rows or rows[-1]["step"] != str(step):
            rows.append({"step": str(step), "dataset": self.dataset})
        rows[-1].update({name: f"{value:.7g}" for name, value in metrics.items()})
        self.last_steps |= dict.fromkeys(metrics, step)

    def flush(self) -> None:
        """Write all rows to the file."""
        columns, final_bytes, rows = self._file
        if not rows:
            return
        added = [name for row in rows for name in row if name not in columns]
        if added or not self.path.exists():
            columns = [*columns, *dict.fromkeys(added)]
            # Do not use `final_bytes`: an interrupted flush may have replaced the file.
            steps = {row["step"] for row in rows}
            # The run's own file: limits for files from elsewhere must not end a long run.
            saved = read_metrics(self.path, limited=False)
            text = _table(columns, [row for row in saved if row["step"] not in steps])
            final_bytes = len(text)
            # The file may already contain the open row: it must survive a kill here.
            write_atomically(text + _lines(columns, rows), self.path)
        else:
            with self.path.open("r+b") as file:
                file.seek(final_bytes)
                file.write(_lines(columns, rows))
                file.truncate()
        self._file = _FileState(columns, final_bytes + len(_lines(columns, rows[:-1])), rows[-1:])


def read_metrics(path: Path, limited: bool = True) -> list[Row]:
    """Read the rows of a `metrics.csv`; none if the file is missing.

    Skip an incomplete last line, which a killed run leaves.
    """
    if not path.exists():
        return []
    columns, *lines = _lines_of(path, limited).decode().split("\n")
    if any(len(line) > MAX_LINE_CHARS for line in lines):
        raise UserError(f"{path} is damaged: a line has more than {MAX_LINE_CHARS:,} characters")
    # While a run is active, remains of an earlier row may follow the last row.
    return _rows(columns.split(","), lines[:-1])


def _lines_of(path: Path, limited: bool = True) -> bytes:
    """Read the complete lines of a table within the limits."""
    content = read_bounded(path, MAX_METRICS_BYTES if limited else MAX_OWN_BYTES)
    if limited and len(content) > MAX_NON_ASCII_BYTES and not content.isascii():
        raise UserError(
            f"{path} is too large: the limit with non-ASCII text is {MAX_NON_ASCII_BYTES:,} bytes"
        )
    content = content[: content.rfind(b"\n") + 1]
    columns = 1 + content.partition(b"\n")[0].count(b",")
    rows = content.count(b"\n")
    if columns > MAX_COLUMNS or (limited and (rows > MAX_ROWS or rows * columns > MAX_CELLS)):
        limit = f"{MAX_CELLS:,} cells in {MAX_ROWS:,} rows"
        raise UserError(f"{path} is too large: the limit is {limit}")
    return content


def _rows(columns: list[str], lines: list[str]) -> list[Row]:
    """Return the rows with a value for each column."""
    rows = (line.split(",") for line in lines)
    return [dict(zip(columns, row, strict=True)) for row in rows if len(row) == len(columns)]


def truncate_metrics(
    path: Path, step: int, logged: dict[str, int] | None = None, limited: bool = True
) -> None:
    """Remove the rows after `step`, and an incomplete last line, from a `metrics.csv`.

    `logged` is the last step to keep of each metric; see `logger.truncate_logs`. A damaged file is
    renamed, and its intact rows are written to a new file. `limited`: for a run from elsewhere.
    """
    if not os.path.lexists(path):
        return
    rows, intact = _intact_rows(path, limited)
    remaining: list[Row] = []
    for row in rows:
        row_step = int(row["step"])
        metrics = {
            tag: value
            for tag, value in row.items()
            if tag not in KEYS and value and (logged is None or row_step <= logged.get(tag, -1))
        }
        if row_step <= step and metrics:
            remaining.append({name: row[name] for name in KEYS} | metrics)
    used = {tag for row in remaining for tag in row}
    columns = [tag for tag in (rows[0] if rows else ()) if tag in used] or list(KEYS)
    content = _table(columns, remaining)
    if not intact:
        remedy = f"renamed the file to {rename_damaged(path).name}"
        say(f"{path} is damaged; {remedy}; {len(rows)} intact rows restored")
    # Replace a hard link by a copy: later rows are written in place.
    if not intact or path.stat().st_nlink > 1 or path.read_bytes() != content:
        write_atomically(content, path)


def _intact_rows(path: Path, limited: bool) -> tuple[list[Row], bool]:
    """Read the rows in the format of `MetricsFile`; return whether all rows have this format."""
    if path.is_symlink():  # rows would be written to the target of the link
        return [], False
    try:
        content = _lines_of(path, limited)
    except (OSError, UserError):  # a folder, a pipe, a broken link, no permission, too large
        return [], False
    if not content:  # the file is empty, or contains the start of the header
        return [], b"step,dataset".startswith(path.read_bytes()[:12])
    header, *lines = content.decode(errors="replace").split("\n")[:-1]
    columns = header.split(",")
    if tuple(columns[:2]) != KEYS or len(set(columns)) != len(columns) or not _is_plain(header):
        return [], False
    rows = [row for row in _rows(columns, lines) if _is_valid(row)]
    return rows, len(rows) == len(lines)


def _is_valid(row: Row) -> bool:
    step, dataset, *metrics = row.values()
    numbers = all(map(NUMBER.fullmatch, filter(None, metrics)))
    return numbers and bool(_STEP.fullmatch(step)) and _is_plain(dataset)


def _is_plain(text: str) -> bool:
    return text.isprintable() and "\ufffd" not in text and '"' not in text


def read_history(path: Path, limited: bool = True) -> dict[str, list[float]]:
    """Read `train|val/loss|accuracy` of each epoch from a `metrics.csv`; missing values are NaN.

    `limited`: for a run from elsewhere.

    Raises:
        UserError: it is damaged.
    """
    tags = [f"{stage}/{name}" for stage in ("train", "val") for name in ("loss", "accuracy")]
    try:
        epochs: list[dict[str, float]] = []
        latest = dict.fromkeys(tags, math.nan)
        for row in read_metrics(path, limited):
            # Without a validation at the end of the epoch, use the last one within it.
            latest |= {tag: float(row[tag]) for tag in tags if row.get(tag)}
            if row.get("epoch"):
                epochs.append(latest)
                latest = dict.fromkeys(tags, math.nan)
        return {tag: [epoch[tag] for epoch in epochs] for tag in tags}
    except ValueError:  # not a number, or not text
        raise UserError(f"{path} is damaged: a value is not a number") from None


def _table(columns: list[str], rows: list[Row]) -> bytes:
    return _lines(columns, [dict(zip(columns, columns, strict=True)), *rows])


def _lines(columns: list[str], rows: list[Row]) -> bytes:
    return "".join(",".join(row.get(name, "") for name in columns) + "\n" for row in rows).encode()
