"""The command `predict`: read the digits in image files."""

import hashlib
import os
import sys
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from mnist_lightning import inference
from mnist_lightning.cli.parser import CommandParser
from mnist_lightning.cli.predict_output import FORMATS, open_output
from mnist_lightning.cli.predict_reader import ImageReader, list_images
from mnist_lightning.errors import UserError
from mnist_lightning.files import create_folder
from mnist_lightning.inference import MULTIPLE, Recognizer
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.extraction_pool import ExtractionPool
from mnist_lightning.runs import lookup
from mnist_lightning.text import plural, say


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    description = "Read the digits in images: files, directories, patterns, or - for stdin."
    examples = "samples/seven.png photos/\nscans/ --output digits.jsonl"
    parser = CommandParser("predict", description, examples)
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
    parser.add_output_format(jsonl="print JSON Lines")
    output_help = "write JSON Lines to this file; after an interrupt, the same command continues"
    parser.add_argument("--output", type=Path, metavar="FILE", help=output_help)
    inputs_help = "save the network's inputs (28 x 28) in this directory"
    parser.add_argument("--save_inputs", type=Path, metavar="DIR", help=inputs_help)
    parser.add_network()
    return parser


def main(arguments: list[str]) -> int:
    """Read the digits in each file; exit with 1 if any could not be read."""
    options = make_parser().parse_args(arguments)
    output_format = next((name for name in FORMATS if getattr(options, name, False)), "text")
    if options.output is not None and output_format in ("json", "csv"):
        raise UserError("--output writes JSON Lines: omit --json and --csv", status=2)
    classes = inference.import_network_class(options.network)
    with ExtractionPool() as pool:
        recognizer = inference.load(options.run, options.root, classes)
        _report_network(recognizer, options.run)
        if options.save_inputs is not None:
            create_folder(options.save_inputs, "--save_inputs")
        multiple = MULTIPLE[options.multiple]
        reader = ImageReader(pool, recognizer, multiple, options.save_inputs)
        total = sum(1 for _ in list_images(options.images))
        if options.output is not None:
            return _write(reader, options, total)
        # On a terminal, the lines themselves show the progress.
        batches = reader.read(options.images, 0 if sys.stdout.isatty() else total)
        for text in FORMATS[output_format](batches):
            say(text, end="", flush=True)
    return int(reader.unreadable > 0)


def _report_network(recognizer: Recognizer, run: str) -> None:
    if not recognizer.is_calibrated:
        problem = "the confidence is not calibrated; give a run instead of a checkpoint file"
        say(problem, file=sys.stderr)
    if run in ("best", "last") and recognizer.source not in ("", lookup.PRETRAINED):
        say(f"network: {recognizer.source}", file=sys.stderr)


def _write(reader: ImageReader, options: Namespace, total: int) -> int:
    """Write the digits to a file, or continue it; return 1 if an image could not be read.

    Raises:
        UserError: the file cannot be continued, or the command was interrupted.
    """
    weights = reader.recognizer.network.state_dict()
    settings = {
        "images": _digest([os.fsencode("\0".join(options.images))]),
        "multiple": options.multiple,
        "network": reader.recognizer.source,
        "weights": _digest(each.numpy(force=True).tobytes() for each in weights.values()),
        "preprocessing": mnist_format.VERSION,
    }
    with open_output(options.output, settings, list_images(options.images)) as output:
        if output.done:
            say(f"{output.path} contains {output.done:,} of {plural(total, 'image')}")
        try:
            for batch in reader.read(options.images, total, output.done):
                output.write(batch)
        except KeyboardInterrupt:
            done = f"interrupted: {output.path} contains {output.done:,} of {total:,} images"
            raise UserError(f"{done}; repeat the command to continue", status=130) from None
    unreadable = f", {output.unreadable:,} not readable" if output.unreadable else ""
    say(f"{options.output}: {plural(total, 'image')}{unreadable}")
    return int(output.unreadable > 0)


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
