"""The command `report`: the results of a run as one page and as images."""

import os

from mnist_lightning import inference
from mnist_lightning.cli.parser import CommandParser
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.evaluation.report import FACTS, PAGE, write
from mnist_lightning.evaluation.run_analysis import analyze
from mnist_lightning.evaluation.run_dataset import load_run_dataset
from mnist_lightning.runs import lookup
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import percent, say

# The sections of the page whose sentence is also printed.
PRINTED_SECTIONS = ("confusions", "digits", "training", "calibration", "robustness", "non_digits")


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    description = "Write one HTML page about a run, with figures, into its directory."
    parser = CommandParser("report", description, "best")
    parser.add_run_options()
    return parser


def main(arguments: list[str]) -> int:
    """Write the report of a run into its directory `report`."""
    options = make_parser().parse_args(arguments)
    run, checkpoint = lookup.find(options.run, options.root)
    if run.is_pretrained:
        problem = "report cannot use `pretrained`: its training is not stored"
        raise UserError(f"{problem}; train a run: {PROGRAM} fit", status=2)
    if checkpoint is not None and checkpoint.resolve() != run.best.resolve():
        problem = f"report cannot use {checkpoint}: it is not the best checkpoint of the run"
        raise UserError(f"{problem}; give the run directory", status=2)
    data, data_dir = load_run_dataset(run, options.data_dir)
    recognizer, missing = _load_network(run, options.network)
    run.refuse_links()
    folder = run.folder / "report"
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"{folder} is not a directory; remove it")
    analysis = analyze(run, data, recognizer, data_dir)
    analysis.missing += missing
    write(analysis, run, folder)
    for text in analysis.missing:
        say(text)
    test = analysis.facts.get("test")
    if test is not None:
        low, high = test["interval"]
        wrong = test["total"] - test["correct"]
        interval = f"95 % interval {percent(low)} to {percent(high)}"
        count = f"{wrong:,} of {test['total']:,} test images are misclassified"
        say(f"{count}: accuracy {percent(test['accuracy'])}, {interval}")
    for name in PRINTED_SECTIONS:
        if name in analysis.findings:
            say(analysis.findings[name].text)
    say(f"definitions of terms: {PROGRAM} explain TERM")
    say(f"report of {run.folder}:\n  {folder / PAGE}\n  {folder / FACTS}")
    say(f"  {len(analysis.figures)} images: {', '.join(analysis.figures)}")
    return 0


def _load_network(run: Run, name: str | None) -> tuple[inference.Recognizer | None, list[str]]:
    """Load the best network of a run; if it cannot be loaded, return what the report lacks.

    Raises:
        UserError: no class has that name.
    """
    classes = inference.import_network_class(name)
    try:
        return inference.load(run.folder, classes=classes), []
    except UserError as error:
        return None, [f"robustness, images without digits and attributions are missing: {error}"]
