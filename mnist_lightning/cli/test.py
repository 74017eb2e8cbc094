"""The commands `validate` and `test`: evaluate a checkpoint, or several as an ensemble."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Trainer
from rich.console import Console

from mnist_lightning import distributed, inference
from mnist_lightning.cli import console as show
from mnist_lightning.cli.lightning_cli import DigitCLI, configure_warnings
from mnist_lightning.cli.parser import asks_for_help, root_in, take_option, take_run, take_switch
from mnist_lightning.cli.trust import blame, check_network, trusted_config
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.evaluation.metrics import mcnemar
from mnist_lightning.networks.ensemble import Ensemble, Shifts
from mnist_lightning.preprocessing.mnist_format import PAPER
from mnist_lightning.runs import lookup
from mnist_lightning.runs.checkpoint import read_signed_checkpoint
from mnist_lightning.runs.config import evaluation_config
from mnist_lightning.runs.metrics_csv import PredictionsTable, write_predictions
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.training.callbacks.prediction_collector import PredictionCollector

MOST_SHIFTS = 4  # pixels, which are 81 copies of each image


class Asked(NamedTuple):
    """A checkpoint that is evaluated, alone or as one of several."""

    reference: str
    run: Run
    path: Path
    checkpoint: dict[str, Any]
    signed: bool


def validate(arguments: list[str]) -> int:
    """Evaluate a checkpoint on the images held out."""
    return _evaluate("validate", arguments)


def test(arguments: list[str]) -> int:
    """Evaluate a checkpoint on the test images."""
    return _evaluate("test", arguments)


def _evaluate(command: str, arguments: list[str]) -> int:
    configure_warnings()
    each_image, arguments = take_switch("--each_image", arguments)
    shifts, arguments = take_option("--shifts", arguments)
    trust, arguments = take_switch("--trust", arguments)
    reach = _reach(shifts)
    reference, rest = take_run(arguments)
    if asks_for_help(rest):
        DigitCLI(command, rest, _HELP.format(command=command))
    dataset, _ = take_option("--data.dataset", rest)
    asked = [
        _asked(one, root_in(rest), dataset) for one in lookup.expand_references(reference or "best")
    ]
    _refuse_strangers(asked, command)
    first = asked[0]
    base = trusted_config(_config_of(first), first.signed, trust, rest)
    check_network(base, first.checkpoint)
    config = evaluation_config(base.content)
    if dataset is not None:
        config["data"] = config.get("data", {}) | {"folder": None, "extra": None}
    with blame(first.path, base.own):
        cli = DigitCLI(command, rest, base=base._replace(content=config), trust=trust)
        return _evaluate_with(cli, command, asked, reach, each_image)


def _evaluate_with(
    cli: DigitCLI, command: str, asked: list[Asked], reach: int, each_image: bool
) -> int:
    """Evaluate checkpoints with the first one's configuration; show and keep what comes out."""
    first = asked[0]
    predictions = PredictionCollector()
    trainer = cli.make_trainer(callbacks=[predictions])
    distributed.join(trainer)
    distributed.assert_same_path(*(one.path for one in asked))
    cli.load_data()
    console = show.make_console()
    show.notices(console, cli.datamodule)
    if command == "validate" and len(cli.datamodule.val_indices) == 0:
        raise UserError(f"{first.path}: its run held no images out (val_size 0) to validate on")

    def work(weights: Path | None) -> PredictionsTable:
        return _worked_through(command, cli, trainer, predictions, weights)

    alone: list[PredictionsTable] = []
    if len(asked) == 1 and not reach:
        table = work(first.path)
    else:
        table, alone = _work_together(asked, cli, work, reach)
    if not distributed.is_first():
        return 0
    kept = _kept(asked, cli, table, reach) if command == "test" else None
    if kept is not None and first.run.config.is_file():
        first.run.refuse_links()
    if each_image:
        show.each_image(table)
    which = str(first.path) if not alone else ", ".join(one.reference for one in asked)
    if reach:
        which += f", and shifted by up to {reach} pixel{'s'[: reach != 1]}"
    name = cli.datamodule.data.name
    show.evaluation(console, command, which, name, trainer, predictions, kept)
    if alone:
        _show_members(console, asked, alone, table)
    if kept is not None:  # last: a folder that nobody may write to costs no figure
        write_predictions(table, kept)
    return 0


def _reach(shifts: str | None) -> int:
    if shifts is None:
        return 0
    if not shifts.isdecimal() or int(shifts) > MOST_SHIFTS:
        raise UserError(f"--shifts: invalid value {shifts}; expected 0 to {MOST_SHIFTS} pixels", 2)
    return int(shifts)


def _worked_through(
    command: str,
    cli: DigitCLI,
    trainer: Trainer,
    predictions: PredictionCollector,
    weights: Path | None,
) -> PredictionsTable:
    """Evaluate the model, with a checkpoint's weights if there is one."""
    evaluate = trainer.test if command == "test" else trainer.validate
    try:
        evaluate(cli.model, cli.datamodule, ckpt_path=weights, verbose=False)
    except SystemExit:  # how Lightning ends after Ctrl-C
        raise KeyboardInterrupt from None
    if predictions.total == 0:
        raise UserError(
            f"nothing to {command} on: {cli.datamodule.data.name} has no image for it, or "
            "--trainer.limit_… is 0",
            status=2,
        )
    return predictions.table()


def _show_members(
    console: Console,
    asked: Sequence[Asked],
    alone: Sequence[PredictionsTable],
    together: PredictionsTable,
) -> None:
    """Compare an ensemble with each of its members, on the same images."""
    right = together.predicted == together.true
    rights = [each.predicted == each.true for each in alone]
    rows = [
        (one.reference, float(own.mean()), mcnemar(right, own))
        for one, own in zip(asked, rights, strict=True)
    ]
    show.members(console, rows, float(right.mean()))


def _asked(reference: str, root: Path, dataset: str | None) -> Asked:
    # A network of any data set may be asked about these.
    among = None if dataset in ("auto", "folder") else dataset
    run, path = lookup.find(reference, root, among)
    path = path or run.best_checkpoint()
    return Asked(reference, run, path, *read_signed_checkpoint(path))


def _config_of(asked: Asked) -> dict[str, Any]:
    """Return a checkpoint's configuration; its network alone if a stock Trainer made it."""
    if "network" not in asked.checkpoint:
        raise UserError(f"{asked.path} holds no DigitClassifier")
    config: dict[str, Any] = asked.checkpoint.get(
        "config", {"model": {"network": asked.checkpoint["network"]}}
    )
    return config


def _refuse_strangers(asked: Sequence[Asked], command: str) -> None:
    """Refuse an ensemble of one run twice, or of runs whose images are others'."""
    if len({one.path.resolve() for one in asked}) < len(asked):
        raise UserError("one and the same run is named twice", status=2)
    names = ["dataset", "checksum", *(("val_size", "split_seed") if command == "validate" else ())]
    data = [one.checkpoint.get("MNISTDataModule", {}) for one in asked]
    for name in names:
        values = [each.get(name) for each in data]
        if any(value != values[0] for value in values):
            told = [f"{value} of {one.reference}" for value, one in zip(values, asked, strict=True)]
            raise UserError(f"these do not go together: {name} is {', '.join(told)}", status=2)


def _work_together(
    asked: Sequence[Asked], cli: DigitCLI, work: Callable[[None], PredictionsTable], reach: int
) -> tuple[PredictionsTable, list[PredictionsTable]]:
    """Evaluate what is asked, each alone and as it is, and then all as one model."""
    kinds = [type(cli.model.network)]
    members = [inference.load(one.path, classes=kinds).network for one in asked]
    alone = []
    for member in members:
        cli.model.network = member
        alone.append(work(None))
    cli.model.network = Shifts(Ensemble(members), reach, PAPER)
    return work(None), alone


def _kept(asked: Sequence[Asked], cli: DigitCLI, table: PredictionsTable, reach: int) -> Path:
    """Where predictions of the test go: into the run where they are its own, else beside."""
    name = cli.datamodule.data.name + (f".shifts{reach}" if reach else "")
    first = asked[0]
    if len(asked) > 1:
        place = lookup.ensemble_directory([one.run for one in asked])
        return place.with_name(f"{place.name}.{name}.csv")
    whole = len(table.true) == len(cli.datamodule.data.test_labels)
    same_data = cli.datamodule.state_dict() == first.checkpoint.get("MNISTDataModule")
    own = first.path == first.run.best and whole and same_data and not reach
    return first.run.predictions if own else first.path.with_suffix(f".{name}.csv")


_HELP = f"""Evaluate a checkpoint with the options of its run, or several as one model.

usage: {PROGRAM} {{command}} [RUN] [options]
RUN is a run's folder, its version number, a checkpoint file, `last`, the newest run, or `best`,
the highest val/accuracy (default). `--ckpt_path FILE` and `--config FILE` work too.
Several RUNs, as 3,5 or 3..7, are an ensemble: the mean of their probabilities.
--each_image prints a line an image, with its true and its predicted label.
--shifts N shows each image also shifted by up to N pixels each way, and takes the mean.
--trust allows the classes that a run from elsewhere names; your own runs need no consent.

example: {PROGRAM} {{command}} best
"""
