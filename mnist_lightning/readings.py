"""The command `predict`: read the digits in picture files."""

import csv
import glob
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from mnist_lightning import images, predict, runs
from mnist_lightning.data.batches import normalise
from mnist_lightning.errors import UserError
from mnist_lightning.evaluation.metrics import tempered
from mnist_lightning.files import write_atomically
from mnist_lightning.options import CommandParser, runs_root
from mnist_lightning.predict import Recogniser

STDIN = "-"
SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"}
UNSURE = 0.8  # a calibrated confidence below this is said


class Answer(NamedTuple):
    """What was read in a file; where nothing could be, `error` says why and the rest is None."""

    file: str
    label: int | None = None
    confidence: float | None = None
    runner_up: int | None = None
    runner_up_confidence: float | None = None
    error: str | None = None


def main(arguments: list[str]) -> int:
    """Read one digit in each file; exit with 1 if any could not be read."""
    description = (
        "Read the digit in each picture: files, folders, patterns, or - for standard input."
    )
    parser = CommandParser("predict", description, "seven.png photos/")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a file, a folder, or -")
    parser.add_argument("--run", default="best", help="whose network to ask (default: best)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV")
    parser.add_argument(
        "--save_inputs", type=Path, metavar="DIR", help="keep what the network saw, 28 x 28, there"
    )
    parser.add_argument(
        "--trainer.default_root_dir", dest="root", metavar="DIR", help="where the runs are"
    )
    options = parser.parse_args(arguments)
    root = runs_root(options.root)
    run, path = runs.find(options.run, root)
    recogniser = predict.load(path or run.folder, root)
    temperature = run.summary().get("temperature")
    answers = [
        _answer(file, recogniser, temperature if isinstance(temperature, float) else 1.0, kept)
        for file, kept in _files(options.images, options.save_inputs)
    ]
    _print(answers, options.json, options.csv)
    return int(any(answer.error is not None for answer in answers))


def _files(asked: Sequence[str], folder: Path | None) -> Iterator[tuple[str, Path | None]]:
    """Every file that is meant, and where its 28 x 28 picture is kept, if anywhere."""
    for index, file in enumerate(each for one in asked for each in _expanded(one)):
        name = "stdin" if file == STDIN else Path(file).stem
        yield file, None if folder is None else folder / f"{index:03}_{name}.png"


def _expanded(asked: str) -> list[str]:
    if asked == STDIN:
        return [STDIN]
    path = Path(asked).expanduser()
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not inside:
            raise UserError(f"no picture in {asked}: none of its files is {', '.join(SUFFIXES)}", 2)
        return [str(file) for file in inside]
    if not path.exists() and glob.has_magic(asked):
        found = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path's wants a folder apart
        return sorted(found) or [asked]
    return [str(path)]


def _answer(file: str, recogniser: Recogniser, temperature: float, kept: Path | None) -> Answer:
    try:
        source: Any = io.BytesIO(sys.stdin.buffer.read()) if file == STDIN else Path(file)
        ink = images.from_picture(images.read(source))
    except OSError as error:
        return Answer(file, error=(error.strerror or str(error)).lower())
    except ValueError as error:
        return Answer(file, error=str(error))
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray(ink).save(buffer, format="png")
        write_atomically(buffer.getvalue(), kept)
    asked = recogniser.probabilities(normalise(torch.from_numpy(ink.copy()).unsqueeze(0)))
    (probabilities,) = tempered(asked.numpy(), temperature)
    second, first = np.argsort(probabilities)[-2:].tolist()
    return Answer(file, first, float(probabilities[first]), second, float(probabilities[second]))


def _print(answers: Sequence[Answer], as_json: bool, as_csv: bool) -> None:
    if as_json:
        print(json.dumps([answer._asdict() for answer in answers], indent=2))
        return
    if as_csv:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Answer._fields)
        writer.writerows(answers)
        print(text.getvalue(), end="")
        return
    width = max(len(answer.file) for answer in answers)
    for answer in answers:
        print(f"{answer.file:<{width}}  {_said(answer)}")


def _said(answer: Answer) -> str:
    if answer.confidence is None or answer.runner_up_confidence is None:
        return f"- {answer.error}"
    said = f"{answer.label}  {100 * answer.confidence:5.1f} %"
    next_best = f"  then {answer.runner_up}  {100 * answer.runner_up_confidence:4.1f} %"
    return said + next_best + ("  unsure" if answer.confidence < UNSURE else "")
