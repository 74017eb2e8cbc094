"""The command `report`: what a run did, on one page and as pictures, in its own folder."""

import base64
import json
import math
import os
from pathlib import Path
from typing import Any

import yaml

from mnist_lightning import __version__, inference, templating
from mnist_lightning.cli.parser import CommandParser, runs_root
from mnist_lightning.errors import UserError
from mnist_lightning.evaluation import plots
from mnist_lightning.evaluation.run_analysis import FIGURE_NAMES, Findings, examine
from mnist_lightning.evaluation.run_dataset import data_of
from mnist_lightning.files import write_atomically
from mnist_lightning.inference import Recognizer
from mnist_lightning.networks.registry import UnknownNetworkError
from mnist_lightning.runs import lookup
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.templating import percent
from mnist_lightning.text import say

PAGE, FIGURES = "report.html", "report.json"


def main(arguments: list[str]) -> int:
    """Write a run's report into its folder `report`."""
    description = "Put what a run did on one page, with its pictures, in its folder."
    parser = CommandParser("report", description, "best")
    parser.add_argument(
        "run", nargs="?", default="best", metavar="RUN", help="which run (default: best)"
    )
    parser.add_run_elsewhere()
    options = parser.parse_args(arguments)
    run, checkpoint = lookup.find(options.run, runs_root(options.root))
    if checkpoint is not None and checkpoint.resolve() != run.best.resolve():
        raise UserError(
            f"a report is of a run and its best checkpoint, not of {checkpoint}; name the run", 2
        )
    data = data_of(run, options.data_dir)
    recognizer, why_not = _network_of(run, options.network)
    run.refuse_links()
    folder = run.folder / "report"
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"{folder} is not a directory; remove it")
    findings = examine(run, data, recognizer)
    findings.missing += why_not
    write(findings, run, folder)
    for what in findings.missing:
        say(what)
    test = findings.facts.get("test")
    if test is not None:
        low, high = test["interval"]
        wrong = test["total"] - test["correct"]
        say(
            f"{wrong:,} of {test['total']:,} test images were read wrongly: accuracy "
            f"{percent(test['accuracy'])}, 95 % interval {percent(low)} to {percent(high)}"
        )
    say(f"report of {run.folder}:")
    say(f"  {folder / PAGE}")
    say(f"  {folder / FIGURES}")
    say(f"  {len(findings.figures)} pictures: {', '.join(findings.figures)}")
    return 0


def write(findings: Findings, run: Run, folder: Path) -> None:
    """Write the page, the figures and the pictures; what an earlier report left is removed."""
    pictures = {name: plots.png(figure) for name, figure in findings.figures.items()}
    folder.mkdir(exist_ok=True)
    for name in FIGURE_NAMES - pictures.keys():
        (folder / f"{name}.png").unlink(missing_ok=True)
    for name, content in pictures.items():
        write_atomically(content, folder / f"{name}.png")
    text = json.dumps(_without_nan(findings.facts), indent=2, allow_nan=False) + "\n"
    write_atomically(text.encode(), folder / FIGURES)
    write_atomically(page(findings, run, pictures).encode(), folder / PAGE)


def _without_nan(facts: Any) -> Any:
    """Replace what JSON has no number for by null: NaN and infinities."""
    if isinstance(facts, dict):
        return {name: _without_nan(value) for name, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_without_nan(value) for value in facts]
    return None if isinstance(facts, float) and not math.isfinite(facts) else facts


def page(findings: Findings, run: Run, pictures: dict[str, bytes]) -> str:
    """Fill the page; everything it shows is in it."""
    embedded = {name: base64.b64encode(content).decode() for name, content in pictures.items()}
    return templating.fill(
        "evaluation/report.html",
        facts=findings.facts,
        missing=findings.missing,
        pictures=embedded,
        name=run.folder.name,
        folder=str(run.folder),
        config=yaml.safe_dump(findings.facts["config"], sort_keys=False),
        version=__version__,
    )


def _network_of(run: Run, name: str | None) -> tuple[Recognizer | None, list[str]]:
    """Load the run's best network; where that cannot be, say what the report lacks.

    Raises:
        UserError: there is no class of that name.
    """
    classes = inference.own_classes(name)
    try:
        return inference.load(run.folder, classes=classes), []
    except UnknownNetworkError as error:
        remedy = "name its class too: --model.network CLASS"
        return None, [f"no robustness and no attributions: {error}; {remedy}"]
    except UserError as error:
        return None, [f"no robustness and no attributions: {error}"]
