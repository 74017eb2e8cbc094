"""fit, resume, validate, test: what surrounds a Trainer's work on a run."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback
from rich.console import Console

from mnist_lightning import checkpoint_file, runs, show
from mnist_lightning.callbacks.checkpoints import RunCheckpoints
from mnist_lightning.callbacks.predictions import Predictions
from mnist_lightning.callbacks.progress import ProgressLines
from mnist_lightning.callbacks.random_state import RandomState
from mnist_lightning.callbacks.summary import RunSummary
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.files import write_atomically
from mnist_lightning.networks import ask_blank
from mnist_lightning.options import as_argument, conflicts, runs_root, take_option, take_run
from mnist_lightning.parsing import DigitCLI, quieten
from mnist_lightning.run_logger import RunLogger, cut_back
from mnist_lightning.runs import Run


def fit(arguments: list[str]) -> int:
    """Train a network, keep its checkpoints, and test the best one."""
    checkpoint, rest = take_option("--ckpt_path", arguments)
    if checkpoint is not None:
        return resume([checkpoint, *rest])
    quieten()
    cli = DigitCLI("fit", rest, _FIT_HELP)
    cli.load_data()
    _refuse_what_cannot_train(cli)
    if cli.config.trainer.fast_dev_run:
        return _train(cli, None)
    run = runs.claim(cli.root)
    with run.lock():
        return _train(cli, run)


def resume(arguments: list[str]) -> int:
    """Go on with a run from its newest whole checkpoint, in its own folder."""
    quieten()
    reference, rest = take_run(arguments)
    if _asks_for_help(rest):
        DigitCLI("resume", rest, _RESUME_HELP)
    run, path = runs.find("last" if reference is None else reference, _root_in(rest))
    path = path or run.newest_checkpoint()
    checkpoint = checkpoint_file.read(path)
    if "config" not in checkpoint:
        raise UserError(f"{path} was not made by `fit`: it does not say with which options")
    base = as_argument(checkpoint["config"])
    if run.config.is_file():
        base = ["--config", str(run.config)]
    cli = DigitCLI("resume", [*base, *rest], _RESUME_HELP)
    cli.load_data()
    _refuse_conflicts(cli, checkpoint["config"])
    cli.datamodule.refuse_other_data(checkpoint["MNISTDataModule"])
    done, ends = epochs_done(checkpoint), cli.config.trainer.max_epochs
    if 0 <= ends <= done and "test/accuracy" in run.summary():
        more = f"{PROGRAM} resume {run.reference} --trainer.max_epochs {2 * done}"
        print(f"{run.folder} is finished: {done} of {done} epochs. To go on: {more}")
        return 0
    if 0 <= ends < done:
        raise UserError(f"{path} is {done} epochs old; --trainer.max_epochs {ends} is behind it", 2)
    _refuse_what_cannot_train(cli)
    if not run.config.is_file():
        run = runs.claim(cli.root)
        print(f"{path} lies in no run's folder: going on in a new one, {run.folder}")
        for copy in (run.best, run.recent()):
            write_atomically(path.read_bytes(), copy)
    with run.lock():
        cut_back(run.folder, checkpoint["global_step"])
        print(f"going on with {run.folder} after epoch {done}, from {path}")
        return _train(cli, run, path, done)


def epochs_done(checkpoint: dict[str, Any]) -> int:
    """Count the epochs behind a checkpoint.

    Raises:
        UserError: it was saved in the middle of an epoch, where max_steps or max_time ended it.
    """
    loop = checkpoint["loops"]["fit_loop"]
    if not loop["epoch_loop.batch_progress"]["is_last_batch"]:
        raise UserError(
            "this checkpoint was saved where --trainer.max_steps or --trainer.max_time ended its "
            "run in the middle of an epoch; go on from the one before: resume …/last-1.ckpt"
        )
    return int(loop["epoch_progress"]["current"]["processed"])


def _refuse_what_cannot_train(cli: DigitCLI) -> None:
    """Find before a run has a folder what would end its training at once."""
    trainer = cli.make_trainer(None, [])
    if 0 in (trainer.max_epochs, trainer.max_steps, trainer.limit_train_batches):
        raise UserError("there is nothing to train: a limit of the trainer is 0", status=2)
    if cli.config.trainer.overfit_batches:
        raise UserError(
            "--trainer.overfit_batches needs a stock loader; use --trainer.limit_train_batches",
            status=2,
        )
    data = cli.datamodule.data
    classes = 1 + int(max(data.train_labels.max(), data.test_labels.max()))
    try:
        shape = tuple(ask_blank(cli.model.network).shape)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the network does not take (B, 1, 28, 28) images: {reason}", 2) from None
    if len(shape) != 2 or shape[1] < classes:
        raise UserError(
            f"the network gives {shape} for one image of {data.name}, which has {classes} classes",
            status=2,
        )


def _refuse_conflicts(cli: DigitCLI, saved: dict[str, Any]) -> None:
    config = cli.complete_config()
    found = conflicts(saved, config)
    lengths = [c["trainer"]["max_epochs"] for c in (saved, config)]
    if lengths[0] != lengths[1] and cli.model.needs_run_length(cli.model.lr_scheduler_factory):
        found.append(
            f"--trainer.max_epochs is {lengths[1]} here, {lengths[0]} in the checkpoint, and the "
            "learning-rate schedule spans the whole run"
        )
    if found:
        raise UserError(
            f"this is not the run that the checkpoint belongs to: {'; '.join(found)}; "
            "leave these out, or start a new run with fit",
            status=2,
        )


def _train(cli: DigitCLI, run: Run | None, checkpoint: Path | None = None, epochs: int = 0) -> int:
    """Fit, test the best checkpoint, and keep and show the figures; without a run keep nothing.

    Args:
        cli: the data, the model and the options.
        run: where to keep everything.
        checkpoint: where to go on from, and
        epochs: how many epochs are behind it.
    """
    console = Console()
    config = cli.complete_config()
    predictions = Predictions()
    facts = RunSummary(run, config["seed_everything"], epochs)
    bar = config["trainer"]["enable_progress_bar"] is not False
    lines = ProgressLines(console, bar, config["log_lines"])
    callbacks: list[Callback] = [lines, RandomState(), predictions, facts]
    logger, checkpoints = None, None
    if run is not None:
        run.write_config(config)
        if config["trainer"]["logger"] in (None, True):
            logger = RunLogger(run.folder, cli.datamodule.data.name)
        if config["trainer"]["enable_checkpointing"] is not False:
            checkpoints = RunCheckpoints(run, config)
            callbacks.append(checkpoints)
    trainer = cli.make_trainer(logger, callbacks)
    show.opening(console, cli.model, cli.datamodule, trainer, run)
    try:
        trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint)
        best = run.best if run is not None and checkpoints is not None else None
        trainer.test(cli.model, cli.datamodule, ckpt_path=best, verbose=False)
    except SystemExit:  # how Lightning ends after Ctrl-C
        show.interrupted(console, run, facts.facts["epochs"])
        return 130
    finally:
        if logger is not None:
            logger.close()
    figures = predictions.figures(trainer)
    facts.finish(checkpoints.best if checkpoints else {}, figures)
    if run is not None and figures:
        predictions.write(run.predictions)
    show.closing(console, facts.facts, run, cli.root)
    return 0


def validate(arguments: list[str]) -> int:
    """Evaluate a checkpoint on the images held out."""
    return _evaluate("validate", arguments)


def test(arguments: list[str]) -> int:
    """Evaluate a checkpoint on the test images."""
    return _evaluate("test", arguments)


def _evaluate(command: str, arguments: list[str]) -> int:
    quieten()
    reference, rest = take_run(arguments)
    if _asks_for_help(rest):
        DigitCLI(command, rest, _EVALUATE_HELP.format(command=command))
    dataset, _ = take_option("--data.dataset", rest)
    if dataset == "auto":
        dataset = None
    run, path = runs.find("best" if reference is None else reference, _root_in(rest), dataset)
    path = path or run.best_checkpoint()
    checkpoint = checkpoint_file.read(path)
    cli = DigitCLI(command, [*as_argument(_config_of(checkpoint, path)), *rest])
    cli.load_data()
    predictions = Predictions()
    trainer = cli.make_trainer(None, [predictions])
    console = Console()
    show.fallback(console, cli.datamodule)
    work = trainer.test if command == "test" else trainer.validate
    if command == "validate" and len(cli.datamodule.val_indices) == 0:
        raise UserError(f"{path}: its run held no images out (val_size 0) to validate on")
    try:
        work(cli.model, cli.datamodule, ckpt_path=path, verbose=False)
    except SystemExit:  # how Lightning ends after Ctrl-C
        raise KeyboardInterrupt from None
    if predictions.total == 0:
        raise UserError(f"nothing to {command} on: --trainer.limit_… is 0", status=2)
    kept = None
    if command == "test":
        whole = predictions.total == len(cli.datamodule.data.test_labels)
        same_data = cli.datamodule.state_dict() == checkpoint.get("MNISTDataModule")
        own = path == run.best and whole and same_data
        kept = run.predictions if own else path.with_suffix(f".{cli.datamodule.data.name}.csv")
        predictions.write(kept)
    show.evaluation(console, command, path, cli.datamodule.data.name, trainer, predictions, kept)
    return 0


def _config_of(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """The configuration in a checkpoint, or its network alone where Lightning alone made it."""
    if "config" in checkpoint:
        config: dict[str, Any] = checkpoint["config"]
        return config
    if "network" not in checkpoint:
        raise UserError(f"{path} holds no DigitClassifier")
    return {"model": {"network": checkpoint["network"]}}


def _asks_for_help(arguments: list[str]) -> bool:
    return "--help" in arguments or "-h" in arguments


def _root_in(arguments: list[str]) -> Path:
    return runs_root(take_option("--trainer.default_root_dir", arguments)[0])


_FIT_HELP = f"""Train a network on MNIST, keep its best checkpoint, and test that.

examples:
  {PROGRAM} fit
  {PROGRAM} fit --trainer.max_epochs 3 --model.optimizer SGD --model.optimizer.lr 0.1
  {PROGRAM} fit --config configs/classic_cnn.yaml --data.batch_size 64
"""
_RESUME_HELP = f"""Go on with a run from its newest whole checkpoint, in its own folder.

usage: {PROGRAM} resume [RUN] [options]
RUN is a run's folder, its version number, a checkpoint file, or `last`, the newest run (default).
The run's own options hold; of the options below only those may differ that change no weight.

example: {PROGRAM} resume last --trainer.max_epochs 20
"""
_EVALUATE_HELP = f"""Evaluate a checkpoint with the options of its run.

usage: {PROGRAM} {{command}} [RUN] [options]
RUN is a run's folder, its version number, a checkpoint file, `last`, the newest run, or `best`,
the highest val/accuracy (default). `--ckpt_path FILE` and `--config FILE` work too.

example: {PROGRAM} {{command}} best
"""
