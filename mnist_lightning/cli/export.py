"""The command `export`: write a model for use elsewhere, and verify it."""

from pathlib import Path
from typing import Any

from torch import nn

from mnist_lightning import inference
from mnist_lightning.cli.parser import CommandParser, runs_root
from mnist_lightning.deployment import model_card
from mnist_lightning.deployment.exporters import CHECKED, ENSEMBLES, FORMATS, Export, write
from mnist_lightning.errors import UserError
from mnist_lightning.evaluation.run_dataset import data_of
from mnist_lightning.files import write_atomically
from mnist_lightning.inference import Recognizer
from mnist_lightning.runs import lookup
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import say


def main(arguments: list[str]) -> int:
    """Export a run's network, checked against itself."""
    parser = CommandParser(
        "export", "Write a run's network in a format for use elsewhere.", "best --format onnx"
    )
    parser.add_argument("run", nargs="?", default="best", metavar="RUN", help="(default: best)")
    parser.add_argument("--format", required=True, choices=list(FORMATS))
    parser.add_argument("--output", type=Path, metavar="PATH", help="(default: in the run)")
    parser.add_argument(
        "--softmax", action="store_true", help="onnx, pt2: give probabilities in place of logits"
    )
    parser.add_argument(
        "--check_images", type=int, default=CHECKED, metavar="N", help=f"(default: {CHECKED:,})"
    )
    parser.add_run_elsewhere()
    options = parser.parse_args(arguments)
    if options.softmax and options.format not in ("onnx", "pt2"):
        raise UserError("--softmax is for onnx and pt2; leave it out", 2)
    if options.check_images < 1:
        raise UserError("--check_images: at least 1; a model that is not checked is none", 2)
    kind = FORMATS[options.format]
    root = runs_root(options.root)
    classes = inference.own_classes(options.network)
    run, folder, recognizer, summary = _asked(options, root, classes)
    data = data_of(run, options.data_dir, unchanged=False)
    pixels = (data.test_images if len(data.test_images) else data.train_images).numpy()
    metadata = model_card.metadata(summary, recognizer)
    for place in (run, Run(folder)):
        place.refuse_links()
    path = options.output or folder / "export" / options.format / f"model.{kind.suffix}"
    if path.is_dir():
        raise UserError(f"--output {path} is a folder; name a file: {path}/model.{kind.suffix}", 2)
    export = Export(recognizer, options.softmax, metadata)
    said = write(export, kind, pixels[: options.check_images], path)
    card = path.with_name(
        "MODEL_CARD.md" if options.output is None else f"{path.stem}.MODEL_CARD.md"
    )
    text = model_card.card(metadata, options.format, path.name, export.output, said)
    write_atomically(text.encode(), card)
    say(f"{folder} as {options.format}: {said}")
    say(f"  {path} ({path.stat().st_size / 1000:,.0f} kB)\n  {card}")
    return 0


def _asked(
    options: Any, root: Path, classes: list[type[nn.Module]]
) -> tuple[Run, Path, Recognizer, dict[str, Any]]:
    """Find what is exported: a run (of several the first), the folder, the network, its facts.

    Raises:
        UserError: there is no such run, or several are no model in this format.
    """
    found = [lookup.find(one, root) for one in lookup.expand_references(options.run)]
    run, checkpoint = found[0]
    summary = run.summary()
    untold: dict[str, Any] = dict.fromkeys(("val/accuracy", "test/correct", "test/total"))
    if len(found) == 1:
        path = checkpoint or run.best_checkpoint()
        is_best = path.resolve() == run.best.resolve()
        recognizer = inference.load(path, root, classes)
        return run, run.folder, recognizer, summary if is_best else summary | untold
    if options.format not in ENSEMBLES:
        formats = " or ".join(ENSEMBLES)
        raise UserError(f"{options.format} takes one RUN; several as one model: {formats}", 2)
    summaries = [run.summary() for run, _ in found]
    if len({each.get("checksum") for each in summaries}) > 1:
        raise UserError("these runs were trained on different data; they are no one model", 2)
    untold["seed"] = ", ".join(str(each.get("seed")) for each in summaries)
    place = lookup.ensemble_directory([run for run, _ in found])
    return run, place, inference.load(options.run, root, classes), summary | untold
