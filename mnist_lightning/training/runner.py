"""One run from its first step, or from a checkpoint, to its closing table."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console

from mnist_lightning import distributed
from mnist_lightning.cli import console as show
from mnist_lightning.cli.lightning_cli import DigitCLI
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.evaluation.metrics import temperature
from mnist_lightning.runs.checkpoint import read_checkpoint
from mnist_lightning.runs.config import reproducibility_key
from mnist_lightning.runs.metrics_csv import PredictionsTable, write_predictions
from mnist_lightning.runs.resumable import progress
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.runs.signature import key_path
from mnist_lightning.text import say
from mnist_lightning.training.callbacks.checkpointing import RunCheckpoints
from mnist_lightning.training.callbacks.graceful_shutdown import Interrupt
from mnist_lightning.training.callbacks.prediction_collector import Predictions
from mnist_lightning.training.callbacks.progress import ProgressLines
from mnist_lightning.training.callbacks.rng_state import RandomState
from mnist_lightning.training.callbacks.run_summary import RunSummary
from mnist_lightning.training.callbacks.tensorboard import Dashboards
from mnist_lightning.training.fast_epoch_loop import stop_looking_for_gpus
from mnist_lightning.training.logger import RunLogger, as_float
from mnist_lightning.training.resumability import unverified_parts

LONGEST = 300  # characters of what another library says
LEAST_FOR_TEMPERATURE = 100  # images held out; of fewer a network may well read all


class Crew(NamedTuple):
    """Who works on a run, besides the model and the data."""

    trainer: Trainer
    facts: RunSummary
    interrupt: Interrupt
    logger: RunLogger | None
    boards: Dashboards | None
    best: Path | None  # where the best checkpoint is kept, if any is


def train(
    cli: DigitCLI,
    run: Run | None,
    checkpoint: Path | None = None,
    epochs: int = 0,
    init_from: str | None = None,
) -> int:
    """Fit, test the best checkpoint, keep and show the figures; return the exit status.

    Args:
        cli: the data, the model and the options.
        run: where to keep everything; None keeps nothing.
        checkpoint: where to go on from, and
        epochs: how many epochs are behind it.
        init_from: whose weights the network has, if another run's.
    """
    stop_looking_for_gpus()
    console = show.make_console()
    crew = _assemble(cli, run, console, epochs, init_from)
    layers = cli.config.trainer.enable_model_summary is not False
    show.opening(console, cli.model, cli.datamodule, crew.trainer, run, layers)
    try:
        with _failures_told(run):
            state = _fit(cli, run, crew, checkpoint, console)
            figures = _test(cli, run, crew)
            _show_settings(cli, crew, figures)
            if crew.logger is not None:
                crew.logger.flush()
            # Last: of a run that says so all is written.
            crew.facts.finish(state, figures)
    except SystemExit as ended:
        if isinstance(ended, SIGTERMException):  # while testing, where Lightning listens
            crew.interrupt.signal = crew.interrupt.signal or SIGTERM
        show.interrupted(console, run, _kept(run))
        return _status(crew)
    finally:
        cli.datamodule.teardown("fit")  # Lightning does not, after an interrupt
        if crew.logger is not None:
            crew.logger.close()
    longer = goes_on_by(cli, crew.facts.facts["epochs"], crew.trainer.global_step)
    show.closing(console, crew.facts.facts, run, cli.root, longer)
    return 0 if state == "finished" else _status(crew)


def goes_on_by(cli: DigitCLI, epochs: int, steps: int) -> str | None:
    """The option by which a run that came to its end goes on for as long again.

    None: by none, for its learning-rate schedule spanned the whole run.
    """
    if cli.model.needs_run_length(cli.model.lr_scheduler_factory):
        return None
    by_steps = 0 < cli.config.trainer.max_steps <= steps
    name, done = ("max_steps", steps) if by_steps else ("max_epochs", epochs)
    return f"--trainer.{name} {2 * done}"


def _status(crew: Crew) -> int:
    """How a process ends that was interrupted."""
    # Of the others Lightning would take it for a failure, and kill the first one.
    return crew.interrupt.status if distributed.is_first() else 0


def _fit(
    cli: DigitCLI, run: Run | None, crew: Crew, checkpoint: Path | None, console: Console
) -> str:
    """Train; say whether the run came to its end, or an interrupt was its end.

    Raises:
        SystemExit: it was interrupted, and is not to be tested.
    """
    try:
        crew.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint)
        if crew.interrupt.heard(crew.trainer):  # after the last step
            raise SystemExit
    except SystemExit:  # how Lightning ends after Ctrl-C
        # To interrupt a run without an end is the way to end it; a termination cannot wait.
        testable = crew.best is not None and crew.best.exists()
        if not cli.has_no_end or crew.interrupt.signal == SIGTERM or not testable:
            raise
        show.line(console, f"interrupted; {_kept(run)}; testing the best checkpoint")
        return "interrupted"
    return "finished"


@contextmanager
def _failures_told(run: Run | None) -> Iterator[None]:
    """Tell of a full disk, or of another process that is gone, what is kept and how to go on.

    Raises:
        UserError: there was such a failure.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if run is None or (isinstance(error, RuntimeError) and distributed.count() == 1):
            raise
        what = " ".join(str(error).split())[:LONGEST]
        if isinstance(error, OSError):
            what = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        resume = f"{PROGRAM} resume {run.reference}"
        raise UserError(f"{what}; {_kept(run)}; once that is mended: {resume}") from None


def _show_settings(cli: DigitCLI, crew: Crew, figures: dict[str, float]) -> None:
    """Bring the settings, and the figures that came of them, to the dashboards."""
    if crew.boards is not None:
        config = cli.complete_config()
        settings = reproducibility_key(config) | {"seed": config["seed_everything"]}
        step = crew.trainer.global_step
        crew.boards.show_settings(settings, _final(crew.facts.facts | figures), step)


def _assemble(
    cli: DigitCLI, run: Run | None, console: Console, epochs: int, init_from: str | None
) -> Crew:
    config = cli.complete_config()
    interrupt = Interrupt()
    bar = config["trainer"]["enable_progress_bar"] is not False
    callbacks: list[Callback] = [ProgressLines(console, bar, config["log_lines"]), RandomState()]
    # What one process alone writes.
    own = run if distributed.is_first() else None
    logger, boards, checkpoints = None, None, None
    if own is not None:
        if not cli.own:
            show.line(
                console, "This run is from elsewhere, and stays unsigned; --trust makes it yours."
            )
        if not own.write_config(config, sign=cli.own) and cli.own:
            show.line(console, f"This run is not signed: no key can be stored as {key_path()}.")
        own.predictions.unlink(missing_ok=True)  # of weights that will not be the best for long
        if config["trainer"]["logger"] in (None, True):
            logger = RunLogger(own.folder, cli.datamodule.data.name)
    if run is not None and config["dashboards"] != "none":
        predictions = Predictions()
        callbacks.append(predictions)
        if logger is not None:
            boards = Dashboards(logger, predictions, config["dashboards"])
            callbacks.append(boards)
    if run is not None and config["trainer"]["enable_checkpointing"] is not False:
        keep, autosave = config["keep_last"], config["autosave"]
        checkpoints = RunCheckpoints(run, config, interrupt, keep, autosave)
        callbacks += [interrupt, checkpoints]
    unverified = unverified_parts(config)
    if unverified and checkpoints is not None and distributed.is_first():
        say(f"an exact resume of this run is not verified: {', '.join(unverified)}")
    facts = RunSummary(
        own, config["seed_everything"], epochs, checkpoints, init_from, exact=not unverified
    )
    trainer = cli.make_trainer(logger, [*callbacks, facts], run.folder if run else None)
    best = run.best if run is not None and checkpoints is not None else None
    return Crew(trainer, facts, interrupt, logger, boards, best)


def _test(cli: DigitCLI, run: Run | None, crew: Crew) -> dict[str, float]:
    """Test the best checkpoint, or where none is kept the last weights; log and keep it all."""
    predictions = Predictions()
    folder = run.folder if run else None
    tester = cli.make_trainer(callbacks=[predictions, crew.facts], folder=folder)
    tester.test(cli.model, cli.datamodule, ckpt_path=crew.best, verbose=False)
    figures: dict[str, Any] = predictions.figures(tester)
    if figures:
        _keep(figures, predictions.table(), cli, run, crew)
    return figures | _temperature(cli)


def _keep(
    figures: dict[str, Any], table: PredictionsTable, cli: DigitCLI, run: Run | None, crew: Crew
) -> None:
    """Bring the test to the logs, the dashboards and the run's folder."""
    step = crew.trainer.global_step
    if crew.logger is not None:
        shown = {name: figures[name] for name in ("test/loss", "test/accuracy")}
        crew.logger.log_metrics(shown, step)
    if crew.boards is not None:
        crew.boards.show_test(cli.model, cli.datamodule, table, step)
    if run is not None and distributed.is_first():
        write_predictions(table, run.predictions)


def _temperature(cli: DigitCLI) -> dict[str, float]:
    """By what to divide the logits of the weights just tested, for confidence that can be trusted.

    The images held out tell; nothing where they are too few, or the network diverged.
    """
    validated = Predictions()
    trainer = cli.make_trainer(callbacks=[validated])
    trainer.validate(cli.model, cli.datamodule, verbose=False)
    if validated.total < LEAST_FOR_TEMPERATURE:
        return {}
    table = validated.table()
    if not np.isfinite(table.probabilities).all():
        return {}
    return {"temperature": as_float(temperature(table.probabilities, table.true))}


def _final(facts: dict[str, Any]) -> dict[str, float]:
    """The figures that a run is compared by."""
    values = {
        "test/accuracy": facts.get("test/accuracy"),
        "test/loss": facts.get("test/loss"),
        "final/val_accuracy": facts["val/accuracy"],
        "final/val_loss": facts["val/loss"],
        "final/fit_seconds": facts["fit_seconds"],
    }
    return {name: value for name, value in values.items() if value is not None}


def _kept(run: Run | None) -> str:
    """Say up to where a run can be gone on from."""
    if run is None or not run.recent().exists():
        return "nothing is kept: there was no checkpoint yet"
    saved = progress(read_checkpoint(run.recent()))
    return f"{run.folder} is kept up to the end of {saved}"
