"""The command `predict`: read the digits in image files."""

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mnist_lightning import inference
from mnist_lightning.cli.parser import CommandParser, runs_root
from mnist_lightning.errors import UserError
from mnist_lightning.files import make_folder, walk, write_atomically
from mnist_lightning.inference import MULTIPLE, UNSURE, Reading, Recognizer
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.mnist_format import png
from mnist_lightning.text import as_csv, printable, say

STDIN = "-"
SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp")
LONGEST = 100  # characters of a file's name in that of what is kept


class Answer(NamedTuple):
    """A digit that was read in a file, or in `error` why none could be; the rest is None then.

    The box is in pixels of the upright picture; `wide` tells that it may hold several digits,
    `unsure` that the confidence is low.
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
    error: str | None = None


def main(arguments: list[str]) -> int:
    """Read the digits in each file; exit with 1 if any could not be read."""
    description = "Read the digits in pictures: files, folders, patterns, or - for standard input."
    parser = CommandParser("predict", description, "seven.png photos/")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a file, a folder, or -")
    parser.add_argument("--run", default="best", help="whose network to ask (default: best)")
    parser.add_argument(
        "--multiple",
        nargs="?",
        const="true",
        choices=list(MULTIPLE),
        default="auto",
        help="read every digit of a picture (default: where it obviously has several)",
    )
    parser.add_form()
    parser.add_argument(
        "--save_inputs", type=Path, metavar="DIR", help="keep what the network saw, 28 x 28, there"
    )
    parser.add_root()
    parser.add_network()
    options = parser.parse_args(arguments)
    root = runs_root(options.root)
    multiple = MULTIPLE[options.multiple]
    recognizer = inference.load(options.run, root, inference.own_classes(options.network))
    if options.save_inputs is not None:
        make_folder(options.save_inputs, "--save_inputs")
    answers = [
        _answers(place, file, recognizer, multiple, options.save_inputs)
        for place, file in enumerate(file for one in options.images for file in _expanded(one))
    ]
    _print(answers, options.json, options.csv)
    return int(any(answer.error is not None for group in answers for answer in group))


def _expanded(asked: str) -> list[str]:
    if asked in (STDIN, ""):
        return [asked]
    path = Path(asked).expanduser()
    if path.is_dir():
        inside = [p for p in walk(path) if p.suffix.lower() in SUFFIXES and p.is_file()]
        if not inside:
            raise UserError(f"no picture in {asked}: none of its files is {', '.join(SUFFIXES)}", 2)
        return [str(file) for file in inside]
    if not path.exists() and any(sign in asked for sign in "*?["):
        # Path's own follows no links for `**`: two of them to `.` would have no end.
        found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        shown = sorted(str(one) for one in found if _is_hidden(one) <= _is_hidden(path))
        return [file for one in shown for file in _expanded(one)] or [asked]
    return [str(path)]


def _is_hidden(path: Path) -> bool:
    return any(part[0] == "." and part != ".." for part in path.parts)


def _answers(
    place: int, file: str, recognizer: Recognizer, multiple: bool | None, folder: Path | None
) -> list[Answer]:
    try:
        source: Any = (
            io.BytesIO(sys.stdin.buffer.read(mnist_format.MOST_BYTES + 1))
            if file == STDIN
            else Path(file)
        )
        readings = recognizer.read(mnist_format.read(source), multiple)
    except OSError as error:
        return [Answer(file, error=(error.strerror or str(error)).lower())]
    except ValueError as error:
        return [Answer(file, error=str(error))]
    if folder is not None:
        name = f"{place:03}_{'stdin' if file == STDIN else Path(file).stem[:LONGEST]}"
        for number, reading in enumerate(readings, 1):
            suffix = f"_{number}" if len(readings) > 1 else ""
            write_atomically(png(reading.digit.ink), folder / f"{name}{suffix}.png")
    return [_answer(file, reading) for reading in readings]


def _answer(file: str, reading: Reading) -> Answer:
    first, second = reading.ranks[:2]
    ink = "dark" if reading.digit.dark else "light"
    chances = reading.probabilities.tolist()
    box, wide = reading.digit.box, reading.digit.wide
    unsure = not chances[first] >= UNSURE
    return Answer(file, first, chances[first], second, chances[second], ink, *box, wide, unsure)


def _print(groups: Sequence[Sequence[Answer]], as_json: bool, in_csv: bool) -> None:
    answers = [answer for group in groups for answer in group]
    if as_json:
        say(json.dumps([answer._asdict() for answer in answers], indent=2))
        return
    if in_csv:
        say(as_csv(Answer._fields, answers), end="")
        return
    width = max(len(printable(answer.file)) for answer in answers)
    for rows in groups:
        file = printable(rows[0].file)
        if len(rows) > 1:
            say(f"{file:<{width}}  {len(rows)} digits: {' '.join(str(r.label) for r in rows)}")
        for row in rows:
            say(f"{'' if len(rows) > 1 else file:<{width}}  {_said(row, len(rows) > 1)}")


def _said(answer: Answer, placed: bool) -> str:
    if answer.confidence is None or answer.runner_up_confidence is None:
        return f"- {printable(answer.error or '')}"
    parts = [
        f"{answer.label}  {100 * answer.confidence:5.1f} %",
        f"then {answer.runner_up}  {100 * answer.runner_up_confidence:4.1f} %",
        f"{answer.ink} ink",
    ]
    if placed:
        parts.append(f"at {answer.left},{answer.top} to {answer.right},{answer.bottom}")
    if answer.wide:
        parts.append("wide: perhaps several digits that touch")
    if answer.unsure:
        parts.append("unsure")
    return "  ".join(parts)
