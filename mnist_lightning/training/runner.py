"""Train a run: fit it, test its best checkpoint, save its results."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM
from typing import Any, NamedTuple, Protocol

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console

from mnist_lightning import distributed
from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.networks.calibration import temperature
from mnist_lightning.runs.checkpoint import read_checkpoint
from mnist_lightning.runs.config import Config, is_unbounded, reproducibility_key
from mnist_lightning.runs.metrics_csv import PredictionsTable, write_predictions
from mnist_lightning.runs.resumable import progress
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.runs.signature import key_path
from mnist_lightning.training.callbacks.checkpointing import RunCheckpoints
from mnist_lightning.training.callbacks.graceful_shutdown import GracefulShutdown
from mnist_lightning.training.callbacks.prediction_collector import PredictionCollector
from mnist_lightning.training.callbacks.progress import ProgressLines
from mnist_lightning.training.callbacks.rng_state import RandomState
from mnist_lightning.training.callbacks.run_summary import RunSummary
from mnist_lightning.training.callbacks.tensorboard import Dashboards
from mnist_lightning.training.fast_epoch_loop import stop_looking_for_gpus
from mnist_lightning.training.lightning_module import DigitClassifier
from mnist_lightning.training.logger import RunLogger, as_float
from mnist_lightning.training.resumability import unverified_parts
from mnist_lightning.training.trainer_factory import TrainerFactory

MAX_MESSAGE_CHARS = 300  # of an error of another library
MIN_FOR_TEMPERATURE = 100  # validation images; a network may classify fewer without an error


class Experiment(NamedTuple):
    """What is trained, on which data, and how.

    Attributes:
        model: the network with its loss and its optimizer.
        data: the data set.
        make_trainer: makes trainers with the options of the configuration.
        config: the complete configuration, in primitives.
        own: whether the configuration is the user's; otherwise the run is not signed.
    """

    model: DigitClassifier
    data: MNISTDataModule
    make_trainer: TrainerFactory
    config: Config
    own: bool


class Result(NamedTuple):
    """What a training has done.

    Attributes:
        state: `finished`, or `interrupted` where its best checkpoint was tested all the same.
        summary: as `summary.json` holds it; None if the training was interrupted before its test.
        steps: optimizer steps in total.
        status: the exit status of the process.
    """

    state: str
    summary: dict[str, Any] | None
    steps: int
    status: int


class Reporter(Protocol):
    """What shows a run while it is trained."""

    console: Console

    def show_start(self, experiment: Experiment, trainer: Trainer, run: Run | None) -> None:
        """Show what is trained, on which data and where."""

    def show_line(self, text: str) -> None:
        """Show one line."""

    def show_interruption(self, run: Run | None, saved: str) -> None:
        """Show what an interrupted run has saved, and how to continue it."""


class TrainingSession(NamedTuple):
    """The trainer of a run and the callbacks that others ask about it."""

    trainer: Trainer
    summary: RunSummary
    shutdown: GracefulShutdown
    logger: RunLogger | None
    dashboards: Dashboards | None
    best: Path | None  # the path of the best checkpoint, if checkpoints are saved

    @property
    def status(self) -> int:
        """The exit status of an interrupted process."""
        # Lightning would take another status of the others for a failure, and kill the first one.
        return self.shutdown.status if distributed.is_first() else 0


def train(
    experiment: Experiment,
    reporter: Reporter,
    run: Run | None,
    checkpoint: Path | None = None,
    epochs: int = 0,
    init_from: str | None = None,
) -> Result:
    """Fit, test the best checkpoint, and save the results.

    Args:
        experiment: what to train.
        reporter: shows it.
        run: the run directory; None saves nothing.
        checkpoint: the checkpoint to resume from.
        epochs: how many epochs it has completed.
        init_from: where the initial weights come from, if from another run.

    Raises:
        UserError: the disk is full, or another process of the run has ended.
    """
    stop_looking_for_gpus()
    session = _build_session(experiment, reporter, run, epochs, init_from)
    reporter.show_start(experiment, session.trainer, run)
    try:
        with _report_failures(run):
            state = _fit(experiment, reporter, run, session, checkpoint)
            figures = _test(experiment, run, session)
            _show_hyperparameters(experiment, session, figures)
            if session.logger is not None:
                session.logger.flush()
            # Last: a run that says `finished` is complete.
            session.summary.finish(state, figures)
    except SystemExit as ended:
        if isinstance(ended, SIGTERMException):  # during the test, where Lightning handles it
            session.shutdown.signal = session.shutdown.signal or SIGTERM
        reporter.show_interruption(run, _saved(run))
        return Result("interrupted", None, session.trainer.global_step, session.status)
    finally:
        experiment.data.teardown("fit")  # after an interrupt Lightning does not
        if session.logger is not None:
            session.logger.close()
    status = 0 if state == "finished" else session.status
    return Result(state, session.summary.facts, session.trainer.global_step, status)


def _build_session(
    experiment: Experiment, reporter: Reporter, run: Run | None, epochs: int, init_from: str | None
) -> TrainingSession:
    config, own = experiment.config, experiment.own
    shutdown = GracefulShutdown()
    bar = config["trainer"]["enable_progress_bar"] is not False
    callbacks: list[Callback] = [
        ProgressLines(reporter.console, bar, config["log_lines"]),
        RandomState(),
    ]
    # What only the first process writes.
    written = run if distributed.is_first() else None
    logger, dashboards, checkpoints = None, None, None
    if written is not None:
        if not own:
            reporter.show_line(
                "This run is from elsewhere and is not signed; add --trust to sign it."
            )
        if not written.write_config(config, sign=own) and own:
            reporter.show_line(f"This run is not signed: no key can be stored as {key_path()}.")
        written.predictions.unlink(missing_ok=True)  # of weights that training replaces
        if config["trainer"]["logger"] in (None, True):
            logger = RunLogger(written.folder, experiment.data.data.name)
    if run is not None and config["dashboards"] != "none":
        predictions = PredictionCollector()
        callbacks.append(predictions)
        if logger is not None:
            dashboards = Dashboards(logger, predictions, config["dashboards"])
            callbacks.append(dashboards)
    if run is not None and config["trainer"]["enable_checkpointing"] is not False:
        checkpoints = RunCheckpoints(run, config, shutdown, config["keep_last"], config["autosave"])
        callbacks += [shutdown, checkpoints]
    unverified = unverified_parts(config)
    if unverified and checkpoints is not None and distributed.is_first():
        reporter.show_line(f"Exact resume is not verified with {', '.join(unverified)}.")
    summary = RunSummary(
        written, config["seed_everything"], epochs, checkpoints, init_from, exact=not unverified
    )
    trainer = experiment.make_trainer(logger, [*callbacks, summary], run.folder if run else None)
    best = run.best if run is not None and checkpoints is not None else None
    return TrainingSession(trainer, summary, shutdown, logger, dashboards, best)


def _fit(
    experiment: Experiment,
    reporter: Reporter,
    run: Run | None,
    session: TrainingSession,
    checkpoint: Path | None,
) -> str:
    """Train; return `finished`, or `interrupted` if an interrupt is how this run ends.

    Raises:
        SystemExit: it was interrupted, and is not tested.
    """
    try:
        session.trainer.fit(experiment.model, datamodule=experiment.data, ckpt_path=checkpoint)
        if session.shutdown.heard(session.trainer):  # after the last step
            raise SystemExit
    except SystemExit:  # this is how Lightning ends after Ctrl-C
        # Only an interrupt ends a run without a limit. SIGTERM leaves no time for a test.
        testable = session.best is not None and session.best.exists()
        unbounded = is_unbounded(experiment.config)
        if not unbounded or session.shutdown.signal == SIGTERM or not testable:
            raise
        reporter.show_line(f"Interrupted. {_saved(run)} Testing the best checkpoint.")
        return "interrupted"
    return "finished"


@contextmanager
def _report_failures(run: Run | None) -> Iterator[None]:
    """Report a full disk, or the loss of another process: what is saved and how to continue.

    Raises:
        UserError: there was such a failure.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if run is None or (isinstance(error, RuntimeError) and distributed.count() == 1):
            raise
        what = " ".join(str(error).split())[:MAX_MESSAGE_CHARS]
        if isinstance(error, OSError):
            what = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        resume = f"{PROGRAM} resume {run.reference}"
        raise UserError(f"{what}. {_saved(run)} After fixing this, run: {resume}") from None


def _test(experiment: Experiment, run: Run | None, session: TrainingSession) -> dict[str, float]:
    """Test the best checkpoint, or the last weights if none is saved; save the results."""
    predictions = PredictionCollector()
    folder = run.folder if run else None
    tester = experiment.make_trainer(callbacks=[predictions, session.summary], folder=folder)
    tester.test(experiment.model, experiment.data, ckpt_path=session.best, verbose=False)
    figures: dict[str, Any] = predictions.figures(tester)
    if figures:
        _save_test(figures, predictions.table(), experiment, run, session)
    return figures | _fit_temperature(experiment)


def _save_test(
    figures: dict[str, Any],
    table: PredictionsTable,
    experiment: Experiment,
    run: Run | None,
    session: TrainingSession,
) -> None:
    """Write the results of the test to the logs, the dashboards and the run directory."""
    step = session.trainer.global_step
    if session.logger is not None:
        logged = {name: figures[name] for name in ("test/loss", "test/accuracy")}
        session.logger.log_metrics(logged, step)
    if session.dashboards is not None:
        session.dashboards.show_test(experiment.model, experiment.data, table, step)
    if run is not None and distributed.is_first():
        write_predictions(table, run.predictions)


def _fit_temperature(experiment: Experiment) -> dict[str, float]:
    """Fit the temperature of the tested weights on the validation set.

    Empty if there are too few validation images, or the network diverged.
    """
    validated = PredictionCollector()
    trainer = experiment.make_trainer(callbacks=[validated])
    trainer.validate(experiment.model, experiment.data, verbose=False)
    if validated.total < MIN_FOR_TEMPERATURE:
        return {}
    table = validated.table()
    if not np.isfinite(table.probabilities).all():
        return {}
    return {"temperature": as_float(temperature(table.probabilities, table.true))}


def _show_hyperparameters(
    experiment: Experiment, session: TrainingSession, figures: dict[str, float]
) -> None:
    """Show the hyperparameters and the results in the dashboards."""
    if session.dashboards is not None:
        config = experiment.config
        settings = reproducibility_key(config) | {"seed": config["seed_everything"]}
        step = session.trainer.global_step
        session.dashboards.show_settings(
            settings, _final_metrics(session.summary.facts | figures), step
        )


def _final_metrics(facts: dict[str, Any]) -> dict[str, float]:
    values = {
        "test/accuracy": facts.get("test/accuracy"),
        "test/loss": facts.get("test/loss"),
        "final/val_accuracy": facts["val/accuracy"],
        "final/val_loss": facts["val/loss"],
        "final/fit_seconds": facts["fit_seconds"],
    }
    return {name: value for name, value in values.items() if value is not None}


def _saved(run: Run | None) -> str:
    """Say up to which point a run is saved."""
    if run is None or not run.recent().exists():
        return "Nothing is saved: there was no checkpoint yet."
    saved = progress(read_checkpoint(run.recent()))
    return f"Saved through {saved} in {run.folder}."
