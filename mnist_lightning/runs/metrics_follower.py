"""Follow a `metrics.csv` while a run writes it: read only what is new, within limits.

The file may come from elsewhere: values that are not valid numbers are ignored.
"""

import math
import os
import stat
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mnist_lightning import posix
from mnist_lightning.errors import UserError
from mnist_lightning.runs.metrics_csv import (
    MAX_COLUMNS,
    MAX_LINE_CHARS,
    MAX_METRICS_BYTES,
    MAX_ROWS,
    NUMBER,
)
from mnist_lightning.runs.snapshots import MAX_COUNT, MAX_EPOCH, is_kept

MAX_STEP_LOSSES = 2_000  # beyond them, every second one is removed
MAX_NUMBER_CHARS = 100
MARK_BYTES = 200  # before the position, compared to find out whether the file was replaced
MEANS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")


class EpochMeans(NamedTuple):
    """The metrics of an epoch; None if they are missing or not finite."""

    epoch: int
    step: int
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None


class StepLoss(NamedTuple):
    """The training loss of a single step."""

    step: int
    loss: float


class MetricsFollower:
    """Reads the metrics of a run again and again, each row once.

    The last row of the file may still change: it is read again each time. If the file was replaced,
    because the run was resumed or has a new column, everything is read again.

    Attributes:
        epochs: the metrics of the epochs, in order; of long runs those that `is_kept` selects, and
            the last one.
        step_losses: the losses of single steps; of long runs every second, fourth, … of those that
            were logged.
        step: the last step in the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start_again()
        self.epochs: list[EpochMeans] = []
        self.step_losses: list[StepLoss] = []
        self.step = 0

    def _start_again(self) -> None:
        self._columns: list[str] = []
        self._position = 0  # of the first row that may change
        self._mark = b""
        self._rows = _Rows()

    def update(self) -> None:
        """Read what is new.

        Raises:
            UserError: the file is too large, or cannot be read.
        """
        try:
            with posix.open_for_reading(self.path) as file:
                self._check(os.fstat(file.fileno()))
                self._read(file)
        except FileNotFoundError:
            self._start_again()
            self._publish(self._rows)
        except OSError as error:
            raise UserError(f"{self.path.name}: {error.strerror}") from None

    def _check(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{self.path.name} is not a regular file")
        if status.st_size > MAX_METRICS_BYTES:
            limit = f"{MAX_METRICS_BYTES:,} bytes"
            raise UserError(f"{self.path.name} is too large to show: the limit is {limit}")

    def _read(self, file: BinaryIO) -> None:
        file.seek(max(0, self._position - MARK_BYTES))
        if file.read(min(self._position, MARK_BYTES)) != self._mark:
            self._start_again()
        file.seek(self._position)
        content = file.read(MAX_METRICS_BYTES)
        content = content[: content.rfind(b"\n") + 1]
        if self._position == 0 and content:
            header, _, content = content.partition(b"\n")
            columns = header.decode(errors="replace").split(",")
            if len(columns) > MAX_COLUMNS:
                raise UserError(f"{self.path.name} has more than {MAX_COLUMNS:,} columns")
            self._columns = columns
            self._advance(header + b"\n")
        if content.count(b"\n") > MAX_ROWS:
            raise UserError(f"{self.path.name} has more than {MAX_ROWS:,} rows")
        last = content.rfind(b"\n", 0, -1) + 1 if content else 0
        for line in content[:last].split(b"\n")[:-1]:
            self._rows.add(self._values(line))
        self._advance(content[:last])
        preview = self._rows.copy()
        preview.add(self._values(content[last:-1]))
        self._publish(preview)

    def _advance(self, content: bytes) -> None:
        self._position += len(content)
        self._mark = (self._mark + content)[-MARK_BYTES:]

    def _values(self, line: bytes) -> dict[str, str]:
        """Return the values of a line by column; empty if it is not a complete row."""
        cells = line.decode(errors="replace").split(",") if len(line) <= MAX_LINE_CHARS else []
        is_row = len(cells) == len(self._columns)
        return dict(zip(self._columns, cells, strict=True)) if is_row else {}

    def _publish(self, rows: "_Rows") -> None:
        self.epochs, self.step_losses, self.step = rows.epochs, rows.step_losses, rows.step


class _Rows:
    """The rows so far."""

    def __init__(self) -> None:
        self.epochs: list[EpochMeans] = []
        self.step_losses: list[StepLoss] = []
        self.step = 0
        self._latest: dict[str, float | None] = dict.fromkeys(MEANS)
        self._interval, self._skipped = 1, 0  # which of the step losses are kept

    def copy(self) -> "_Rows":
        """Return a copy, to which a row can be added that may still change."""
        other = _Rows()
        other.epochs, other.step_losses = [*self.epochs], [*self.step_losses]
        other.step, other._latest = self.step, {**self._latest}
        other._interval, other._skipped = self._interval, self._skipped
        return other

    def add(self, row: dict[str, str]) -> None:
        """Add a row, unless its step is invalid."""
        step = _count(row.get("step", ""), MAX_COUNT)
        if step is None or step < self.step:
            return
        self.step = step
        loss = _number(row.get("train/step_loss", ""))
        if loss is not None:
            self._add_step_loss(StepLoss(step, loss))
        # Without a validation at the end of the epoch, use the last one within it.
        self._latest |= {tag: _number(row[tag]) for tag in MEANS if row.get(tag)}
        epoch = _count(row.get("epoch", ""), MAX_EPOCH)
        if epoch is None:
            return
        last = self.epochs[-1].epoch if self.epochs else 0
        if epoch > last:
            if self.epochs and not is_kept(last):
                self.epochs.pop()
            self.epochs.append(EpochMeans(epoch, step, *(self._latest[tag] for tag in MEANS)))
        self._latest = dict.fromkeys(MEANS)

    def _add_step_loss(self, step_loss: StepLoss) -> None:
        self._skipped += 1
        if self._skipped < self._interval:
            return
        self._skipped = 0
        self.step_losses.append(step_loss)
        if len(self.step_losses) > MAX_STEP_LOSSES:
            del self.step_losses[1::2]
            self._interval *= 2


def _count(text: str, limit: int) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(limit))
    return int(text) if is_number and int(text) <= limit else None


def _number(text: str) -> float | None:
    value = float(text) if len(text) <= MAX_NUMBER_CHARS and NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None
