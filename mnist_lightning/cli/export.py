"""The command `export`: write a model for use elsewhere, and verify it."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_lightning import inference
from mnist_lightning.cli.parser import CommandParser
from mnist_lightning.data.synthetic import draw_digits
from mnist_lightning.deployment import exporters, model_card
from mnist_lightning.errors import UserError
from mnist_lightning.evaluation.run_dataset import load_run_dataset
from mnist_lightning.files import write_atomically
from mnist_lightning.networks.registry import NetworkFactory
from mnist_lightning.runs import lookup
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import join_words, say

ENSEMBLE_FORMATS = join_words(exporters.ENSEMBLE_FORMATS, "or")


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    description = "Export the network of a run to another format, and check the exported file."
    parser = CommandParser("export", description, "best --format onnx")
    parser.add_argument("--format", required=True, choices=list(exporters.FORMATS))
    parser.add_argument(
        "--output", type=Path, metavar="PATH", help="(default: in the run directory)"
    )
    softmax_help = "onnx, int8, pt2: return probabilities instead of logits"
    parser.add_argument("--softmax", action="store_true", help=softmax_help)
    check_help = "(default: 1,000)"
    parser.add_argument("--check_images", type=int, default=1_000, metavar="N", help=check_help)
    parser.add_run_options()
    return parser


def main(arguments: list[str]) -> int:
    """Export the network of a run, and compare the export with it."""
    options = make_parser().parse_args(arguments)
    if options.softmax and options.format not in exporters.ENSEMBLE_FORMATS:
        raise UserError(f"--softmax requires --format {ENSEMBLE_FORMATS}; omit --softmax", 2)
    if options.check_images < 1:
        raise UserError(f"--check_images: invalid value {options.check_images}; give at least 1", 2)
    kind = exporters.FORMATS[options.format]
    classes = inference.import_network_class(options.network)
    run, folder, recognizer, summary = _load(options, classes)
    training_images, pixels = _images(run, options)
    metadata = model_card.metadata(summary, recognizer)
    if folder == run.folder:
        run.refuse_links()
    Run(folder).refuse_links()
    path = options.output or folder / "export" / options.format / f"model.{kind.suffix}"
    if path.is_dir():
        raise UserError(f"--output {path} is a directory; give {path}/model.{kind.suffix}", 2)
    export = exporters.Export(recognizer, options.softmax, metadata, training_images)
    result = exporters.write(export, kind, pixels, path)
    prefix = "" if options.output is None else f"{path.stem}."
    card = path.with_name(f"{prefix}MODEL_CARD.md")
    text = model_card.card(metadata, options.format, path.name, export.output, result)
    write_atomically(text.encode(), card)
    say(f"{folder} as {options.format}: {result}")
    say(f"  {path} ({path.stat().st_size / 1000:,.0f} kB)\n  {card}")
    return 0


def _images(run: Run, options: Namespace) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return training images, and images for the check, of the data set of a run (N, 28, 28).

    For `pretrained`, they are generated.
    """
    if run.is_pretrained:  # needs no data set
        drawn = draw_digits(options.check_images, seed=0)[0]
        return drawn, drawn
    data, _ = load_run_dataset(run, options.data_dir, unchanged=False)
    images = data.test_images if len(data.test_images) else data.train_images
    return data.train_images.numpy(), images[: options.check_images].numpy()


def _load(
    options: Namespace, classes: list[NetworkFactory]
) -> tuple[Run, Path, inference.Recognizer, dict[str, Any]]:
    """Return what to export: the (first) run, its directory, the network and its summary.

    Raises:
        UserError: a run does not exist, or the format does not support ensembles.
    """
    root = options.root
    members = [lookup.find_network(each, root) for each in lookup.expand_references(options.run)]
    run, checkpoint = members[0]
    summary = run.summary()
    unknown: dict[str, Any] = dict.fromkeys(("val/accuracy", "test/correct", "test/total"))
    if len(members) == 1:
        path = checkpoint or run.best_checkpoint()
        recognizer = inference.load(path, root, classes)
        if run.is_pretrained:
            return run, root / lookup.PRETRAINED, recognizer, summary
        is_best = path.resolve() == run.best.resolve()
        return run, run.folder, recognizer, summary if is_best else summary | unknown
    if options.format not in exporters.ENSEMBLE_FORMATS:
        message = f"{options.format} takes one RUN; for an ensemble use {ENSEMBLE_FORMATS}"
        raise UserError(message, 2)
    summaries = [run.summary() for run, _ in members]
    if len({each.get("checksum") for each in summaries}) > 1:
        raise UserError("cannot build an ensemble: these runs have different training data", 2)
    unknown["seed"] = ", ".join(str(each.get("seed")) for each in summaries)
    directory = lookup.ensemble_directory([run for run, _ in members], root)
    return run, directory, inference.load(options.run, root, classes), summary | unknown
