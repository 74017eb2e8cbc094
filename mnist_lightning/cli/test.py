"""The command `test`: evaluate a checkpoint, or several as an ensemble."""

from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Trainer

from mnist_lightning import distributed, inference
from mnist_lightning.cli import console
from mnist_lightning.cli.lightning_cli import DigitCLI, ExperimentParser
from mnist_lightning.cli.parser import option_value
from mnist_lightning.cli.trust import check_network, trusted_config
from mnist_lightning.data.arguments import OWN_DATA
from mnist_lightning.errors import UserError
from mnist_lightning.networks.ensemble import Ensemble, ShiftAveraging
from mnist_lightning.networks.registry import factory_of
from mnist_lightning.preprocessing.normalization import PAPER
from mnist_lightning.runs import lookup
from mnist_lightning.runs.checkpoint import read_signed_checkpoint
from mnist_lightning.runs.config import evaluation_config
from mnist_lightning.runs.predictions_csv import PredictionsTable, write_predictions
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import plural
from mnist_lightning.training.callbacks.prediction_collector import PredictionCollector

MAX_SHIFT = 4  # pixels: 81 copies of each image
# Evaluates the model, with the weights of a checkpoint if one is given.
Evaluation = Callable[[Path | None], PredictionsTable]


class LoadedCheckpoint(NamedTuple):
    """A checkpoint to evaluate, alone or as a member of an ensemble."""

    reference: str
    run: Run
    path: Path
    content: dict[str, Any]
    signed: bool


def make_parser(command: str = "test") -> ExperimentParser:
    """Return the parser of the command, or of `validate`."""
    parser = ExperimentParser(command, _DESCRIPTION, "best", takes_run=True)
    each_help = "print the true and the predicted label of each image, one line per image"
    parser.add_argument("--each_image", action="store_true", help=each_help)
    shifts_help = "average the predictions of copies shifted by up to this number of pixels"
    choices = range(MAX_SHIFT + 1)
    parser.add_argument("--shifts", type=int, default=0, choices=choices, help=shifts_help)
    return parser


def main(arguments: list[str]) -> int:
    """Evaluate a checkpoint on the test set."""
    return evaluate_command("test", arguments)


def evaluate_command(command: str, arguments: list[str]) -> int:
    """Evaluate a checkpoint, or several as an ensemble; return the exit status."""
    parser = make_parser(command)
    options, rest = parser.split(arguments)
    dataset = option_value("--data.dataset", rest)
    references = lookup.expand_references(options.run or "best")
    checkpoints = [_load(reference, options.root, dataset) for reference in references]
    _check_compatible(checkpoints, command)
    first = checkpoints[0]
    base = trusted_config(_config_of(first), first.signed, options.trust, rest)
    check_network(base, first.content)
    config = evaluation_config(base.content)
    if dataset is not None:
        config["data"] = config.get("data", {}) | {"folder": None, "extra": None}
    cli = DigitCLI(parser, rest, base._replace(content=config), options.trust)
    return _evaluate_with(cli, command, checkpoints, options)


def _evaluate_with(
    cli: DigitCLI, command: str, checkpoints: list[LoadedCheckpoint], options: Namespace
) -> int:
    """Evaluate checkpoints with the configuration of the first; show and save the results."""
    first, max_shift, predictions = checkpoints[0], options.shifts, PredictionCollector()
    trainer = cli.make_trainer(callbacks=[predictions])
    cli.make_trainer.loaded.update((each.path, each.content) for each in checkpoints)
    distributed.join(trainer)
    distributed.assert_same_path(*(checkpoint.path for checkpoint in checkpoints))
    cli.load_data()
    out = console.make_console()
    console.show_data_notices(out, cli.datamodule)
    if command == "validate" and len(cli.datamodule.val_indices) == 0:
        raise UserError(
            f"{first.path}: the run has no validation set (val_size 0); use the command test"
        )
    evaluate = partial(_run_evaluation, cli, trainer, predictions, command)
    members: dict[str, PredictionsTable] = {}
    if len(checkpoints) == 1 and not max_shift:
        table = evaluate(first.path)
    else:
        table, members = _evaluate_ensemble(checkpoints, cli, evaluate, max_shift)
    if not distributed.is_rank_zero():
        return 0
    saved = _predictions_path(checkpoints, cli, table, max_shift) if command == "test" else None
    if saved is not None and first.run.config.is_file():
        first.run.refuse_links()
    if options.each_image:
        console.show_predictions(table)
    label = ", ".join(members) or str(first.path)
    if max_shift:
        label += f", and shifted by up to {plural(max_shift, 'pixel')}"
    rows = [("data set", cli.datamodule.data.name), ("checkpoint", label)]
    stage = "val" if command == "validate" else "test"
    accuracy, loss = (float(trainer.callback_metrics[f"{stage}/{n}"]) for n in ("accuracy", "loss"))
    correct, total = int(table.correct.sum()), len(table.true)
    rows += console.metric_rows(stage, accuracy, loss, correct, total)
    rows += [("predictions", str(saved))] if saved is not None else []
    console.show_table(out, command, rows)
    if members:
        console.show_members(out, members, table)
    if saved is not None:  # last: the results are shown even if the directory is not writable
        write_predictions(table, saved)
    return 0


def _run_evaluation(
    cli: DigitCLI, trainer: Trainer, found: PredictionCollector, command: str, weights: Path | None
) -> PredictionsTable:
    """Evaluate the model, with the weights of a checkpoint if one is given."""
    evaluate = trainer.test if command == "test" else trainer.validate
    try:
        evaluate(cli.model, cli.datamodule, ckpt_path=weights, verbose=False)
    except SystemExit:  # raised by Lightning after Ctrl-C
        raise KeyboardInterrupt from None
    if found.total == 0:
        reason = f"{cli.datamodule.data.name} has no such images, or --trainer.limit_…_batches is 0"
        raise UserError(f"no images to {command}: {reason}", status=2)
    return found.table()


def _load(reference: str, root: Path, dataset: str | None) -> LoadedCheckpoint:
    # For these, `best` may be a run on any data set.
    run, path = lookup.find(reference, root, None if dataset in ("auto", *OWN_DATA) else dataset)
    path = path or run.best_checkpoint()
    content, signed = read_signed_checkpoint(path)
    if run.is_pretrained:
        content["MNISTDataModule"] = run.summary()  # has the same entries
    content.pop("loops", None)  # the counters of the training; an evaluation does not use them
    return LoadedCheckpoint(reference, run, path, content, signed)


def _config_of(checkpoint: LoadedCheckpoint) -> dict[str, Any]:
    """Return the configuration of a checkpoint; only its network if a stock Trainer made it."""
    if "network" not in checkpoint.content:
        raise UserError(f"{checkpoint.path} contains no DigitClassifier; give another checkpoint")
    network = {"model": {"network": checkpoint.content["network"]}}
    config: dict[str, Any] = checkpoint.content.get("config", network)
    return config


def _check_compatible(checkpoints: Sequence[LoadedCheckpoint], command: str) -> None:
    """Refuse an ensemble that contains a run twice, or runs with different data."""
    if len({checkpoint.path.resolve() for checkpoint in checkpoints}) < len(checkpoints):
        raise UserError(
            "cannot build an ensemble: a run is given twice; give each run once", status=2
        )
    names = ["dataset", "checksum", *(("val_size", "split_seed") if command == "validate" else ())]
    data = [checkpoint.content.get("MNISTDataModule", {}) for checkpoint in checkpoints]
    for name in names:
        values = [each.get(name) for each in data]
        if any(value != values[0] for value in values):
            pairs = zip(values, checkpoints, strict=True)
            found = [f"{value} of {checkpoint.reference}" for value, checkpoint in pairs]
            raise UserError(
                f"cannot build an ensemble: {name} differs: {', '.join(found)}", status=2
            )


def _evaluate_ensemble(
    checkpoints: Sequence[LoadedCheckpoint], cli: DigitCLI, evaluate: Evaluation, max_shift: int
) -> tuple[PredictionsTable, dict[str, PredictionsTable]]:
    """Evaluate the ensemble with shifts, and each member without; return both results."""
    classes = [factory_of(cli.model.network)]
    networks = [inference.load(each.path, classes=classes).network for each in checkpoints]
    members = {}
    for checkpoint, network in zip(checkpoints, networks, strict=True):
        cli.model.network = network
        members[checkpoint.reference] = evaluate(None)
    cli.model.network = ShiftAveraging(Ensemble(networks), max_shift, PAPER)
    return evaluate(None), members


def _predictions_path(
    checkpoints: Sequence[LoadedCheckpoint], cli: DigitCLI, table: PredictionsTable, max_shift: int
) -> Path:
    """Return the file for the predictions of a test: that of the run, or one for this test.

    The run's own file is for its best checkpoint, its data, all test images and no shifts.
    """
    name = cli.datamodule.data.name + (f".shifts{max_shift}" if max_shift else "")
    first = checkpoints[0]
    if len(checkpoints) > 1:
        directory = lookup.ensemble_directory([each.run for each in checkpoints], cli.root)
        return directory.with_name(f"{directory.name}.{name}.csv")
    if first.run.is_pretrained:
        cli.root.mkdir(parents=True, exist_ok=True)
        return cli.root / f"{lookup.PRETRAINED}.{name}.csv"
    complete = len(table.true) == len(cli.datamodule.data.test_labels)
    same_data = cli.datamodule.state_dict() == first.content.get("MNISTDataModule")
    own = first.path == first.run.best and complete and same_data and not max_shift
    return first.run.predictions if own else first.path.with_suffix(f".{name}.csv")


_DESCRIPTION = (
    "Evaluate a checkpoint with the options of its run. RUN is a run directory, a version number, "
    "a checkpoint file, `last`, the newest run, or `best`, the highest val/accuracy (default). "
    "Several RUNs, such as 3,5 or 3..7, are an ensemble: their probabilities are averaged."
)
