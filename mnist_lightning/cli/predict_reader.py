"""Read many image files for `predict`: find the digits on all cores, predict them in batches."""

import io
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from mnist_lightning.cli.predict_output import Batch, PredictedDigit
from mnist_lightning.errors import UserError
from mnist_lightning.files import walk, write_atomically
from mnist_lightning.inference import DigitPrediction, Recognizer
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.extraction_pool import ExtractionPool
from mnist_lightning.preprocessing.extraction_process import DigitExtractor
from mnist_lightning.preprocessing.image_limits import IMAGE_SUFFIXES
from mnist_lightning.preprocessing.mnist_format import DigitImage

STDIN = "-"
MAX_NAME_BYTES = 100  # of an image file's name, in the name of a saved input
# The network reads the digits of so many files at once; a file may contain 200 digits.
BATCH_FILES, BATCH_DIGITS = 32, 200


def list_images(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the files of all arguments, in order: files, directories, patterns, `-` for stdin.

    Raises:
        UserError: a directory contains no image.
    """
    for argument in arguments:
        yield from _expand(argument)


def _expand(argument: str) -> Iterator[str]:
    path = Path(argument).expanduser()
    if argument in (STDIN, ""):
        yield argument
    elif path.is_dir():
        yield from _list_folder(path, argument)
    elif not path.exists() and any(sign in argument for sign in "*?["):
        # `Path.glob` follows no links for `**`: two links to `.` would make an endless search.
        matches = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        visible = sorted(str(match) for match in matches if _is_hidden(match) <= _is_hidden(path))
        if not visible:
            yield argument
        for match in visible:
            yield from _expand(match)
    else:
        yield str(path)


def _list_folder(folder: Path, argument: str) -> Iterator[str]:
    is_empty = True
    for entry in walk(folder):
        suffix = os.path.splitext(entry.name)[1]  # noqa: PTH122 - faster than `Path`
        if suffix.lower() in IMAGE_SUFFIXES and Path(entry.path).is_file():
            is_empty = False
            yield str(Path(entry.path))
    if is_empty:
        raise UserError(f"no image in {argument}; expected files {', '.join(IMAGE_SUFFIXES)}", 2)


def _is_hidden(path: Path) -> bool:
    return any(part[0] == "." and part != ".." for part in path.parts)


class _Found(NamedTuple):
    """The digits found in a file, or the reason why there are none."""

    number: int
    file: str
    digits: Sequence[DigitImage] = ()
    error: str | None = None


class ImageReader:
    """Reads image files.

    Args:
        pool: the processes that find the digits.
        recognizer: the network.
        multiple: whether an image contains several digits; None: detect it.
        save_inputs: a directory for the inputs of the network; None: do not save them.
    """

    def __init__(
        self,
        pool: ExtractionPool,
        recognizer: Recognizer,
        multiple: bool | None,
        save_inputs: Path | None,
    ) -> None:
        self.pool = pool
        self.recognizer = recognizer
        self.multiple = multiple
        self.save_inputs = save_inputs
        self.unreadable = 0  # the number of files that could not be read

    def read(self, images: Sequence[str], total: int, done: int = 0) -> Iterator[Batch]:
        """Yield the digits of all files in batches, in order.

        Args:
            images: the arguments of the command; see `list_images`.
            total: the number of files, for the progress; 0: show no progress.
            done: the number of files to omit, because they were read before.
        """
        files = islice(enumerate(list_images(images)), done, None)
        batch: list[_Found] = []
        for found in self.pool.map(self._find_digits, files, "reading", total, done):
            batch.append(found)
            digits = sum(len(each.digits) for each in batch)
            if len(batch) >= BATCH_FILES or digits >= BATCH_DIGITS:
                yield self._predict(batch)
                batch = []
        if batch:
            yield self._predict(batch)

    def _find_digits(self, extractor: DigitExtractor, item: tuple[int, str]) -> _Found:
        number, file = item
        try:
            source = Path(file) if file != STDIN else _read_standard_input()
            found = extractor.find_digits(mnist_format.read_content(source), self.multiple)
        except OSError as error:
            return _Found(number, file, error=(error.strerror or str(error)).lower())
        except ValueError as error:
            return _Found(number, file, error=str(error))
        return _Found(number, file, found.digits)

    def _predict(self, batch: Sequence[_Found]) -> Batch:
        digits = [digit for found in batch for digit in found.digits]
        readings = iter(self.recognizer.read_digits(digits) if digits else [])
        return [self._to_rows(each, list(islice(readings, len(each.digits)))) for each in batch]

    def _to_rows(
        self, found: _Found, readings: Sequence[DigitPrediction]
    ) -> Sequence[PredictedDigit]:
        error = found.error
        if self.save_inputs is not None:
            try:
                _save_inputs(readings, self.save_inputs, found)
            except OSError as problem:
                error = (problem.strerror or str(problem)).lower()
        if error is not None:
            self.unreadable += 1
            return [PredictedDigit(found.file, error=error)]
        return [_to_row(found.file, reading) for reading in readings]


def _read_standard_input() -> io.BytesIO:
    return io.BytesIO(sys.stdin.buffer.read(mnist_format.MAX_BYTES + 1))


def _save_inputs(readings: Sequence[DigitPrediction], folder: Path, found: _Found) -> None:
    stem = "stdin" if found.file == STDIN else Path(found.file).stem
    name = os.fsencode(f"{found.number:03}_{stem}")[:MAX_NAME_BYTES].decode(errors="ignore")
    for number, reading in enumerate(readings, 1):
        suffix = f"_{number}" if len(readings) > 1 else ""
        write_atomically(mnist_format.png(reading.digit.ink), folder / f"{name}{suffix}.png")


def _to_row(file: str, reading: DigitPrediction) -> PredictedDigit:
    digit, second = reading.digit, reading.ranks[1]
    best = reading.label, reading.confidence
    runner_up = second, float(reading.probabilities[second])
    ink = "dark" if digit.dark else "light"
    notes = digit.wide, reading.unsure, reading.not_digit
    cell = digit.cell or (None, None)
    return PredictedDigit(file, *best, *runner_up, ink, *digit.box, *notes, *cell)
