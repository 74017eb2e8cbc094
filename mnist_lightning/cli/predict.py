"""The command `predict`: read the digits in image files."""

import io
import json
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mnist_lightning import inference
from mnist_lightning.cli.parser import CommandParser
from mnist_lightning.errors import UserError
from mnist_lightning.files import create_folder, walk, write_atomically
from mnist_lightning.inference import MULTIPLE, DigitPrediction, Recognizer
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.extraction_process import DigitExtractor
from mnist_lightning.runs import lookup
from mnist_lightning.text import as_csv, confidence, printable, say, shorten

STDIN = "-"
SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp")
MAX_NAME_CHARS = 200  # of a file, in the table
MAX_NAME_BYTES = 100  # of an image file's name, in the name of a saved input


class PredictedDigit(NamedTuple):
    """A digit that was read in a file. If none was, `error` has the reason, and the rest is None.

    The box is in pixels of the upright image. `wide`: the box may contain several digits.
    `unsure`: the confidence is low. `not_digit`: it is probably not a digit.
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
    error: str | None = None


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    description = "Read the digits in images: files, directories, patterns, or - for stdin."
    parser = CommandParser("predict", description, "samples/seven.png photos/")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a file, a directory, or -")
    parser.add_argument(
        "--run",
        default="best",
        help="the run of the network (default: best; without runs: pretrained)",
    )
    names = list(MULTIPLE)
    multiple_help = "read several digits per image (default: if an image clearly contains several)"
    parser.add_argument(
        "--multiple", nargs="?", const="true", choices=names, default="auto", help=multiple_help
    )
    parser.add_output_format()
    inputs_help = "save the network's inputs (28 x 28) in this directory"
    parser.add_argument("--save_inputs", type=Path, metavar="DIR", help=inputs_help)
    parser.add_network()
    return parser


def main(arguments: list[str]) -> int:
    """Read the digits in each file; exit with 1 if any could not be read."""
    options = make_parser().parse_args(arguments)
    classes = inference.import_network_class(options.network)
    with DigitExtractor() as extractor:  # its imports run while the network is loaded
        recognizer = inference.load(options.run, options.root, classes)
        if not recognizer.is_calibrated:
            say(
                "the confidence is not calibrated; give a run instead of a checkpoint file",
                file=sys.stderr,
            )
        if options.run in ("best", "last") and recognizer.source not in ("", lookup.PRETRAINED):
            say(f"network: {recognizer.source}", file=sys.stderr)
        if options.save_inputs is not None:
            create_folder(options.save_inputs, "--save_inputs")
        files = [file for argument in options.images for file in _expand(argument)]
        groups = [
            _read_digits(number, file, extractor, recognizer, options)
            for number, file in enumerate(files)
        ]
    _print(groups, options.json, options.csv)
    return int(any(digit.error is not None for group in groups for digit in group))


def _expand(argument: str) -> list[str]:
    if argument in (STDIN, ""):
        return [argument]
    path = Path(argument).expanduser()
    if path.is_dir():
        files = [p for p in walk(path) if p.suffix.lower() in SUFFIXES and p.is_file()]
        if not files:
            raise UserError(f"no image in {argument}; expected files {', '.join(SUFFIXES)}", 2)
        return [str(file) for file in files]
    if not path.exists() and any(sign in argument for sign in "*?["):
        # `Path.glob` follows no links for `**`: two links to `.` would make an endless search.
        matches = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        visible = sorted(str(match) for match in matches if _is_hidden(match) <= _is_hidden(path))
        return [file for match in visible for file in _expand(match)] or [argument]
    return [str(path)]


def _is_hidden(path: Path) -> bool:
    return any(part[0] == "." and part != ".." for part in path.parts)


def _read_digits(
    number: int, file: str, extractor: DigitExtractor, recognizer: Recognizer, options: Namespace
) -> list[PredictedDigit]:
    try:
        source: Any = Path(file)
        stem = source.stem
        if file == STDIN:
            source = io.BytesIO(sys.stdin.buffer.read(mnist_format.MAX_BYTES + 1))
            stem = "stdin"
        content = mnist_format.read_content(source)
        found = extractor.find_digits(content, MULTIPLE[options.multiple])
        readings = recognizer.read_digits(found.digits)
        if options.save_inputs is not None:
            _save_inputs(readings, options.save_inputs, f"{number:03}_{stem}")
    except OSError as error:
        return [PredictedDigit(file, error=(error.strerror or str(error)).lower())]
    except ValueError as error:
        return [PredictedDigit(file, error=str(error))]
    return [_to_row(file, reading) for reading in readings]


def _save_inputs(readings: Sequence[DigitPrediction], folder: Path, name: str) -> None:
    name = os.fsencode(name)[:MAX_NAME_BYTES].decode(errors="ignore")
    for number, reading in enumerate(readings, 1):
        suffix = f"_{number}" if len(readings) > 1 else ""
        write_atomically(mnist_format.png(reading.digit.ink), folder / f"{name}{suffix}.png")


def _to_row(file: str, reading: DigitPrediction) -> PredictedDigit:
    digit, second = reading.digit, reading.ranks[1]
    best = reading.label, reading.confidence
    runner_up = second, float(reading.probabilities[second])
    ink = "dark" if digit.dark else "light"
    notes = digit.wide, reading.unsure, reading.not_digit
    return PredictedDigit(file, *best, *runner_up, ink, *digit.box, *notes)


def _print(groups: Sequence[Sequence[PredictedDigit]], as_json: bool, in_csv: bool) -> None:
    digits = [digit for group in groups for digit in group]
    if as_json:
        say(json.dumps([digit._asdict() for digit in digits], indent=2))
        return
    if in_csv:
        say(as_csv(PredictedDigit._fields, digits), end="")
        return
    names = [shorten(printable(rows[0].file), MAX_NAME_CHARS) for rows in groups]
    width = max(map(len, names))
    for file, rows in zip(names, groups, strict=True):
        if len(rows) > 1:
            say(f"{file:<{width}}  {len(rows)} digits: {' '.join(map(_label, rows))}")
        for row in rows:
            say(f"{'' if len(rows) > 1 else file:<{width}}  {_line(row, len(rows) > 1)}")


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
    if with_box:
        parts.append(f"at {digit.left},{digit.top} to {digit.right},{digit.bottom}")
    if digit.wide:
        parts.append("wide: possibly several touching digits")
    if digit.not_digit:
        parts[:2] = ["?  probably not a digit", f"most like {digit.label}"]
    elif digit.unsure:
        parts.append("unsure")
    return "  ".join(parts)
