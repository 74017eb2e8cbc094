"""The command `report`: the results of a run as one page and as images."""

import os

from mnist_lightning import inference
from mnist_lightning.cli.parser import CommandParser, runs_root
from mnist_lightning.errors import UserError
from mnist_lightning.evaluation.report import FIGURES, PAGE, write
from mnist_lightning.evaluation.run_analysis import examine
from mnist_lightning.evaluation.run_dataset import data_of
from mnist_lightning.inference import Recognizer
from mnist_lightning.networks.registry import UnknownNetworkError
from mnist_lightning.runs import lookup
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.templating import percent
from mnist_lightning.text import say


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
