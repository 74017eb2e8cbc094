"""Write and read `metrics.csv` and `predictions.csv`."""

import csv
import io
import math
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.errors import UserError
from mnist_lightning.files import move_aside, read_bounded, write_atomically
from mnist_lightning.text import say

METRICS_FILE = "metrics.csv"
MAX_METRICS_BYTES = 50_000_000  # 60,000 steps of 20 metrics have 10 MB
MAX_WIDE_BYTES = 5_000_000  # of text beyond ASCII, which takes four bytes a character
MAX_PREDICTIONS_BYTES = 50_000_000  # the 60,000 images of QMNIST have 8 MB
MAX_COLUMNS = 1_000
MAX_LINE = 100_000
MAX_CELLS = 1_500_000
MAX_CLASSES = 200  # a confusion matrix has the square of it

Row = dict[str, str]
KEYS = ("step", "dataset")  # the columns that are no metric


_STEP = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"-?([0-9]+(\.[0-9]+)?(e[-+][0-9]{1,3})?|inf)|nan")


class _Written(NamedTuple):
    """What a `MetricsFile` knows of its file.

    Attributes:
        columns: of the file.
        settled: bytes before the rows that may still change.
        open: the last row, which may still grow, and those after it.
    """

    columns: list[str]
    settled: int
    open: list[Row]


class MetricsFile:
    """`metrics.csv`: a row a step, a column a metric; columns are added as metrics appear.

    A flush may be cut short by Ctrl-C and followed by another one: what is known of the file is
    replaced in one assignment.
    """

    def __init__(self, path: Path, dataset: str) -> None:
        self.path = path
        self.dataset = dataset
        rows = read_metrics(path, cells=math.inf)
        columns = list(rows[0]) if rows else list(KEYS)
        last = [{name: value for name, value in row.items() if value} for row in rows[-1:]]
        size = path.stat().st_size if path.exists() else 0
        self._file = _Written(columns, size - len(_lines(columns, last)), last)

    @property
    def columns(self) -> list[str]:
        """The names of the file's columns."""
        return self._file.columns

    def add(self, metrics: dict[str, float], step: int) -> None:
        """Add values to the row of `step`."""
        rows = self._file.open
        if not rows or rows[-1]["step"] != str(step):
            rows.append({"step": str(step), "dataset": self.dataset})
        rows[-1].update({name: f"{value:.7g}" for name, value in metrics.items()})

    def flush(self) -> None:
        """Bring all rows to the file."""
        columns, settled, rows = self._file
        if not rows:
            return
        new = [name for row in rows for name in row if name not in columns]
        if new or not self.path.exists():
            columns = [*columns, *dict.fromkeys(new)]
            # Not by `settled`: a flush that was cut short may have replaced the file.
            steps = {row["step"] for row in rows}
            # Its own file: a long run is not to end by a limit for the files of others.
            written = read_metrics(self.path, cells=math.inf)
            text = _table(columns, [row for row in written if row["step"] not in steps])
            settled = len(text)
            # The open row may have been in the file: killed here, it has to be there still.
            write_atomically(text + _lines(columns, rows), self.path)
        else:
            with self.path.open("r+b") as file:
                file.seek(settled)
                file.write(_lines(columns, rows))
                file.truncate()
        self._file = _Written(columns, settled + len(_lines(columns, rows[:-1])), rows[-1:])


def read_metrics(path: Path, size: int | None = None, cells: float = MAX_CELLS) -> list[Row]:
    """Read the rows in the first `size` bytes of a `metrics.csv`; none where there is no file.

    A last line without an end was torn when its run was killed, and is left out.
    """
    if not path.exists():
        return []
    content = _content(path, bounded=cells < math.inf)[:size]
    content = content[: content.rfind(b"\n") + 1]
    columns = content.partition(b"\n")[0].decode().split(",")
    if len(columns) > MAX_COLUMNS or content.count(b"\n") * len(columns) > cells:
        raise UserError(f"{path} is too large: the limit is {MAX_CELLS:,} cells")
    lines = content.decode().split("\n")[1:-1]
    if any(len(line) > MAX_LINE for line in lines):
        raise UserError(f"{path} is damaged: a line has more than {MAX_LINE:,} characters")
    rows = (line.split(",") for line in lines)
    # While a run is at work, the end of an earlier row may stand behind the last one.
    return [dict(zip(columns, row, strict=True)) for row in rows if len(row) == len(columns)]


def _content(path: Path, bounded: bool) -> bytes:
    content = read_bounded(path, MAX_METRICS_BYTES if bounded else math.inf)
    if bounded and len(content) > MAX_WIDE_BYTES and not content.isascii():
        raise UserError(f"{path} is too large: the limit beyond ASCII is {MAX_WIDE_BYTES:,} bytes")
    return content


def cut_metrics(
    path: Path, step: int, logged: dict[str, int] | None = None, bounded: bool = True
) -> None:
    """Drop what came after `step`, and a torn line, from a `metrics.csv`.

    `logged` is the last step of each metric that stays; see `run_logger.cut_back`. Of a damaged
    file the intact rows are kept, and the file itself is moved aside.
    """
    if not os.path.lexists(path):
        return
    rows, whole = _intact_rows(path, bounded)
    kept_rows: list[Row] = []
    for row in rows:
        at = int(row["step"])
        kept = {
            tag: value
            for tag, value in row.items()
            if tag not in KEYS and value and (logged is None or at <= logged.get(tag, -1))
        }
        if at <= step and kept:
            kept_rows.append({name: row[name] for name in KEYS} | kept)
    used = {tag for row in kept_rows for tag in row}
    columns = [tag for tag in (rows[0] if rows else ()) if tag in used] or list(KEYS)
    content = _table(columns, kept_rows)
    if not whole:
        aside = move_aside(path)
        say(f"{path} is damaged; kept as {aside.name}; {len(rows)} of its rows stay")
    # A hard link becomes a copy: later rows are written in place.
    if not whole or path.stat().st_nlink > 1 or path.read_bytes() != content:
        write_atomically(content, path)


def _intact_rows(path: Path, bounded: bool) -> tuple[list[Row], bool]:
    """Read the rows that `MetricsFile` could have written; tell whether all are such rows."""
    if path.is_symlink():  # a row would be written to wherever it leads
        return [], False
    try:
        content = _content(path, bounded)
    except (OSError, UserError):  # a folder, a pipe, a link to nothing, no permission, too large
        return [], False
    count = content.count(b"\n") * (1 + content.partition(b"\n")[0].count(b","))
    if bounded and count > MAX_CELLS:
        return [], False
    lines = content[: content.rfind(b"\n") + 1].decode(errors="replace").split("\n")[:-1]
    if not lines:
        return [], not content or _is_start_of_header(content)
    columns, *cells = [line.split(",") for line in lines]
    if tuple(columns[:2]) != KEYS or len(set(columns)) != len(columns) or not _is_plain(lines[0]):
        return [], False
    rows = [
        dict(zip(columns, row, strict=True))
        for row in cells
        if len(row) == len(columns)
        and _STEP.fullmatch(row[0])
        and _is_plain(row[1])
        and all(map(_NUMBER.fullmatch, filter(None, row[2:])))
    ]
    return rows, len(rows) == len(cells)


def _is_start_of_header(content: bytes) -> bool:
    return b"step,dataset".startswith(content[:12])


def _is_plain(text: str) -> bool:
    return text.isprintable() and "\ufffd" not in text and '"' not in text


def read_history(path: Path) -> dict[str, list[float]]:
    """Read `train|val/loss|accuracy` of each epoch from a `metrics.csv`.

    What an epoch lacks is NaN.

    Raises:
        UserError: it is damaged.
    """
    tags = [f"{stage}/{name}" for stage in ("train", "val") for name in ("loss", "accuracy")]
    try:
        history: dict[str, list[float]] = {tag: [] for tag in tags}
        latest = dict.fromkeys(tags, math.nan)
        for row in read_metrics(path):
            # A validation within the epoch counts for it, if none came at its end.
            latest |= {tag: float(row[tag]) for tag in tags if row.get(tag)}
            if row.get("epoch"):
                for tag in tags:
                    history[tag].append(latest[tag])
                latest = dict.fromkeys(tags, math.nan)
        return history
    except ValueError:  # no number, or no text at all
        raise UserError(f"{path} is damaged: it holds what is no number") from None


def _table(columns: list[str], rows: list[Row]) -> bytes:
    return _lines(columns, [dict(zip(columns, columns, strict=True)), *rows])


def _lines(columns: list[str], rows: list[Row]) -> bytes:
    return "".join(",".join(row.get(name, "") for name in columns) + "\n" for row in rows).encode()


class PredictionsTable(NamedTuple):
    """What a network said of N images.

    Attributes:
        true: (N,) labels.
        predicted: (N,) labels.
        probabilities: (N, C).
    """

    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.floating[Any]]


def write_predictions(table: PredictionsTable, path: Path) -> None:
    """Write a row an image: index, true, predicted, and the probability of each class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = range(table.probabilities.shape[1])
    writer.writerow(["index", "true", "predicted", *(f"p{c}" for c in classes)])
    rows = zip(*(column.tolist() for column in table), strict=True)
    for index, (true, predicted, probabilities) in enumerate(rows):
        writer.writerow([index, true, predicted, *(f"{p:.6g}" for p in probabilities)])
    write_atomically(text.getvalue().encode(), path)


def read_predictions(path: Path) -> PredictionsTable:
    """Read a `predictions.csv`; the probabilities of a network that diverged are NaN.

    Raises:
        UserError: it is damaged.
    """
    content = read_bounded(path, MAX_PREDICTIONS_BYTES)
    try:
        # Not the csv module: a list of strings takes ten times the memory of numbers.
        _, _, body = content.partition(b"\n")
        if not body.strip():
            raise ValueError
        rows = np.loadtxt(io.BytesIO(body), delimiter=",", ndmin=2, comments=None)
        labels = rows[:, 1:3]
        known = (labels == np.floor(labels)) & (labels >= 0) & (labels < rows.shape[1] - 3)
        if rows.shape[1] - 3 > MAX_CLASSES or not known.all():
            raise ValueError
        if not np.array_equal(rows[:, 0], np.arange(len(rows))):
            raise ValueError
        true, predicted = labels.astype(np.int64).T
    except (ValueError, IndexError):
        raise UserError(f"{path} is no table of predictions, or damaged; make it anew") from None
    return PredictionsTable(true, predicted, rows[:, 3:])
