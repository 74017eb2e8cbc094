"""The output of `predict`: text, JSON, JSON Lines or CSV, and files that can be continued."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from textwrap import indent
from typing import Any, BinaryIO, NamedTuple

from filelock import FileLock, Timeout

from mnist_lightning import posix
from mnist_lightning.errors import UserError
from mnist_lightning.files import create_folder, replacement
from mnist_lightning.text import as_csv, confidence, plural, printable, shorten

MAX_NAME_CHARS = 200  # of a file, in the table
MAX_LINE_BYTES = 100_000
MAX_NAME_BYTES = 200  # of a file: its temporary name is longer


class PredictedDigit(NamedTuple):
    """A digit that was read in a file. If none was, `error` has the reason, and the rest is None.

    The box is in pixels of the upright image. `wide`: the box may contain several digits.
    `unsure`: the confidence is low. `not_digit`: it is probably not a digit. `row` and `column`,
    from 1: the cell of a form; None in other images.
    """

    file: str
    label: int | None = None
    confidence: float | None = None
    runner_up: int | None = None
    runner_up_confidence: float | None = None
    ink: str | None = None  # dark or light
    left: int | None = None
    top: int | None = None
    right: int | None = None
    bottom: int | None = None
    wide: bool | None = None
    unsure: bool | None = None
    not_digit: bool | None = None
    row: int | None = None
    column: int | None = None
    error: str | None = None


Batch = Sequence[Sequence[PredictedDigit]]  # the digits of each of several files


def as_text(batches: Iterable[Batch]) -> Iterator[str]:
    """Format the digits as a table."""
    width = 0
    for batch in batches:
        names = [shorten(printable(rows[0].file), MAX_NAME_CHARS) for rows in batch]
        width = max([width, *map(len, names)])
        lines: list[str] = []
        for file, rows in zip(names, batch, strict=True):
            table = _table(rows)
            if table:
                lines.append(f"{file:<{width}}  {table[0]}")
                lines += [f"{'':<{width}}  {line}" for line in table[1:]]
                rows = [row for row in rows if row.not_digit or row.unsure]
            elif len(rows) > 1:
                lines.append(f"{file:<{width}}  {len(rows)} digits: {' '.join(map(_label, rows))}")
            for row in rows:
                start = "" if table or len(rows) > 1 else file
                lines.append(f"{start:<{width}}  {_line(row, bool(table) or len(rows) > 1)}")
        yield "".join(f"{line}\n" for line in lines)


def as_json(batches: Iterable[Batch]) -> Iterator[str]:
    """Format the digits as one JSON array."""
    before = "[\n"
    for batch in batches:
        for rows in batch:
            for row in rows:
                yield before + indent(json.dumps(row._asdict(), indent=2), "  ")
                before = ",\n"
    yield "\n]\n"


def as_json_lines(batches: Iterable[Batch]) -> Iterator[str]:
    """Format each digit as a line of JSON."""
    for batch in batches:
        yield "".join(json.dumps(row._asdict()) + "\n" for rows in batch for row in rows)


def as_csv_lines(batches: Iterable[Batch]) -> Iterator[str]:
    """Format the digits as CSV."""
    columns: Sequence[str] | None = PredictedDigit._fields
    for batch in batches:
        yield as_csv(columns, [row for rows in batch for row in rows])
        columns = None


# By option.
FORMATS: dict[str, Callable[[Iterable[Batch]], Iterator[str]]] = {
    "text": as_text,
    "json": as_json,
    "jsonl": as_json_lines,
    "csv": as_csv_lines,
}


def _table(digits: Sequence[PredictedDigit]) -> list[str]:
    """Format the digits of a form as a title and a line for each row; an empty cell is a dot."""
    labels = {(digit.row, digit.column): _label(digit) for digit in digits if digit.row}
    if not labels:
        return []
    rows, columns = (max(numbers) for numbers in zip(*labels, strict=True))
    title = f"{plural(len(labels), 'digit')} in a form:"
    lines = [[labels.get((row, column), ".") for column in _count(columns)] for row in _count(rows)]
    return [title, *map(" ".join, lines)]


def _count(number: int) -> range:
    return range(1, number + 1)


def _label(digit: PredictedDigit) -> str:
    return "?" if digit.not_digit else str(digit.label)


def _line(digit: PredictedDigit, with_box: bool) -> str:
    if digit.confidence is None or digit.runner_up_confidence is None:
        return f"- {printable(digit.error or '')}"
    parts = [
        f"{_label(digit)}  {confidence(digit.confidence):>7}",
        f"then {digit.runner_up}  {confidence(digit.runner_up_confidence):>6}",
        f"{digit.ink} ink",
    ]
    if digit.row is not None:
        parts.append(f"row {digit.row}, column {digit.column}")
    if with_box:
        parts.append(f"at {digit.left},{digit.top} to {digit.right},{digit.bottom}")
    if digit.wide:
        parts.append("wide: possibly several touching digits")
    if digit.not_digit:
        parts[:2] = ["?  probably not a digit", f"most like {digit.label}"]
    elif digit.unsure:
        parts.append("unsure")
    return "  ".join(parts)


@contextmanager
def open_output(
    path: Path, settings: dict[str, Any], images: Iterable[str]
) -> Iterator["OutputFile"]:
    """Open a file of JSON Lines that gets its name when the block ends without an error.

    Until then, the lines are in `FILE.partial`, after a line with the settings. The same command
    continues such a file.

    Args:
        path: the file.
        settings: the settings that must be the same when the file is continued; JSON values.
        images: the image files, in order.

    Raises:
        UserError: the file exists, another process writes it, or there is a `.partial` file of
            other settings or images.
    """
    if len(os.fsencode(path.name)) > MAX_NAME_BYTES:
        raise UserError(f"--output: the name {shorten(path.name, 60)} is too long", status=2)
    create_folder(path.parent, "--output")
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        locked = lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process writes {path}; wait until it ends") from None
    partial = path.with_name(f"{path.name}.partial")
    with locked:
        if path.exists():
            Path(lock.lock_file).unlink(missing_ok=True)
            raise UserError(f"--output {path} already exists; give another name, or delete it", 2)
        with _open_partial(partial) as file:
            output = OutputFile(partial, file)
            output.start(settings, images)
            yield output
        with partial.open("rb") as source, replacement(path) as complete:
            source.readline()
            shutil.copyfileobj(source, complete)
        partial.unlink()
        Path(lock.lock_file).unlink(missing_ok=True)


def _open_partial(path: Path) -> BinaryIO:
    try:
        return posix.open_for_update(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{path}: {reason}; delete it, or give another --output") from None


class OutputFile:
    """An unfinished file of JSON Lines; see `open_output`.

    Args:
        path: its path, for messages.
        file: the open file.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self.done = 0  # the number of image files whose digits are written
        self.unreadable = 0  # of them

    def write(self, batch: Batch) -> None:
        """Write the digits of further image files."""
        try:
            for text in as_json_lines([batch]):
                self._file.write(text.encode())
            self._file.flush()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            problem = f"{self.path} cannot be written: {reason}"
            raise UserError(f"{problem}; then repeat the command to continue") from None
        self.done += len(batch)
        self.unreadable += sum(rows[0].error is not None for rows in batch)

    def start(self, settings: dict[str, Any], images: Iterable[str]) -> None:
        """Write the settings; or count the image files whose digits are already written.

        The digits of the last one are cut off: a killed process may not have written all.

        Raises:
            UserError: the settings or the images differ.
        """
        header = json.dumps(settings).encode() + b"\n"
        first = self._file.readline(MAX_LINE_BYTES)
        if first != header and header.startswith(first):  # new, or killed at its start
            self._file.seek(0)
            self._file.write(header)
            self._file.flush()
            self._file.truncate()
            return
        self._check_settings(first, settings)
        remaining = groupby(images)  # a file may be given twice
        last = end = self._file.tell()
        name, count, errors = None, 0, 0  # of the last image file
        for row, size in self._rows():
            file = row["file"]
            if file != name:
                self.done += count
                self.unreadable += errors
                expected, same = next(remaining, (None, ()))
                if file != expected:
                    raise UserError(
                        f"{self.path} does not match the images: it contains {file}, expected "
                        f"{expected or 'nothing more'}; delete it to start again",
                        status=2,
                    )
                name, count, errors, last = file, sum(1 for _ in same), 0, end
            errors += row.get("error") is not None
            end += size
        self._file.seek(last)
        self._file.truncate()

    def _check_settings(self, line: bytes, settings: dict[str, Any]) -> None:
        try:
            former = json.loads(line)
        except (ValueError, RecursionError):
            former = None
        if not isinstance(former, dict):
            problem = f"{self.path} was not written by `predict --output`"
            raise UserError(f"{problem}; give another --output, or delete it", status=2)
        changed = [name for name, value in settings.items() if former.get(name) != value]
        if changed:
            name = changed[0]
            raise UserError(
                f"{self.path} is of a command with other options: {name} was "
                f"{shorten(str(former.get(name)), 80)}, is now {settings[name]}; repeat the former "
                "command, or delete the file",
                status=2,
            )

    def _rows(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield the rows, and the sizes of their lines in bytes, up to an incomplete line."""
        while (line := self._file.readline(MAX_LINE_BYTES)).endswith(b"\n"):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                return
            if not isinstance(row, dict) or not isinstance(row.get("file"), str):
                return
            yield row, len(line)
