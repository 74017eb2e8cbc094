"""Train a run: fit it, test its best checkpoint, save its results."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mnist_lightning import distributed
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.networks.calibration import temperature
from mnist_lightning.runs.checkpoint import read_checkpoint
from mnist_lightning.runs.config import is_unbounded, reproducibility_key
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
from mnist_lightning.training.experiment import Experiment, Reporter, Result
from mnist_lightning.training.fast_epoch_loop import disable_nvml_check
from mnist_lightning.training.logger import RunLogger, as_float
from mnist_lightning.training.resumability import unverified_parts

MAX_MESSAGE_CHARS = 300  # of another library's error message
MIN_IMAGES_FOR_TEMPERATURE = 100  # a network may classify fewer images without an error


class TrainingSession(NamedTuple):
    """The trainer of a run and the callbacks that are used after training."""

    trainer: Trainer
    summary: RunSummary
    shutdown: GracefulShutdown
    logger: RunLogger | None
    dashboards: Dashboards | None
    best: Path | None  # the path of the best checkpoint, if checkpoints are saved

    @property
    def status(self) -> int:
        """The exit status of an interrupted process."""
        # Lightning treats a nonzero status of another process as a failure, and kills the first.
        return self.shutdown.status if distributed.is_rank_zero() else 0


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
        reporter: displays it.
        run: the run directory; None saves nothing.
        checkpoint: the checkpoint to resume from.
        epochs: the number of completed epochs of the checkpoint.
        init_from: the run that the initial weights are from, if any.

    Raises:
        UserError: the disk is full, or another process of the run has ended.
    """
    disable_nvml_check()
    session = _build_session(experiment, reporter, run, epochs, init_from)
    reporter.show_start(experiment, session.trainer, run)
    try:
        with _report_failures(run):
            state = _fit(experiment, reporter, run, session, checkpoint)
            results = _test(experiment, run, session)
            _show_hyperparameters(experiment, session, results)
            if session.logger is not None:
                session.logger.flush()
            # Last, because a run in the state `finished` must be complete.
            session.summary.finish(state, results)
    except SystemExit as error:
        if isinstance(error, SIGTERMException):  # during the test, Lightning handles the signal
            session.shutdown.signal = session.shutdown.signal or SIGTERM
        reporter.show_interruption(run, _saved(run))
        return Result("interrupted", None, session.trainer.global_step, session.status)
    finally:
        experiment.data.teardown("fit")  # Lightning omits it after an interrupt
        if session.logger is not None:
            session.logger.close()
    status = 0 if state == "finished" else session.status
    return Result(state, session.summary.facts, session.trainer.global_step, status)


def _build_session(
    experiment: Experiment, reporter: Reporter, run: Run | None, epochs: int, init_from: str | None
) -> TrainingSession:
    config, own = experiment.config, experiment.own
    shutdown = GracefulShutdown()
    show_bar = config["trainer"]["enable_progress_bar"] is not False
    callbacks: list[Callback] = [
        ProgressLines(reporter.console, show_bar, config["log_lines"]),
        RandomState(),
    ]
    # Only the first process writes.
    output_run = run if distributed.is_rank_zero() else None
    logger, dashboards, checkpoints = None, None, None
    if output_run is not None:
        if not own:
            reporter.show_line(
                "This run is from elsewhere and is not signed; add --trust to sign it."
            )
        if not output_run.write_config(config, sign=own) and own:
            reporter.show_line(f"This run is not signed: no key can be stored as {key_path()}.")
        output_run.predictions.unlink(missing_ok=True)  # they belong to earlier weights
        if config["trainer"]["logger"] in (None, True):
            logger = RunLogger(output_run.folder, experiment.data.data.name)
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
    if unverified and checkpoints is not None and distributed.is_rank_zero():
        reporter.show_line(f"Exact resume is not verified with {', '.join(unverified)}.")
    summary = RunSummary(
        output_run, config["seed_everything"], epochs, checkpoints, init_from, exact=not unverified
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
    """Train; return `finished`, or `interrupted` if the best checkpoint is still to be tested.

    Raises:
        SystemExit: training was interrupted, without a test.
    """
    try:
        session.trainer.fit(experiment.model, datamodule=experiment.data, ckpt_path=checkpoint)
        if session.shutdown.is_requested(session.trainer):  # after the last step
            raise SystemExit
    except SystemExit:  # raised by Lightning after Ctrl-C
        # An unbounded run always ends by an interrupt. SIGTERM leaves no time for a test.
        testable = session.best is not None and session.best.exists()
        unbounded = is_unbounded(experiment.config)
        if not unbounded or session.shutdown.signal == SIGTERM or not testable:
            raise
        reporter.show_line(f"Interrupted. {_saved(run)} Testing the best checkpoint.")
        return "interrupted"
    return "finished"


@contextmanager
def _report_failures(run: Run | None) -> Iterator[None]:
    """Report a full disk or the loss of another process: what is saved and how to resume.

    Raises:
        UserError: such a failure occurred.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if run is None or (isinstance(error, RuntimeError) and distributed.world_size() == 1):
            raise
        reason = " ".join(str(error).split())[:MAX_MESSAGE_CHARS]
        if isinstance(error, OSError):
            reason = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        resume = f"{PROGRAM} resume {run.reference}"
        raise UserError(f"{reason}. {_saved(run)} After fixing this, run: {resume}") from None


def _test(experiment: Experiment, run: Run | None, session: TrainingSession) -> dict[str, float]:
    """Test the best checkpoint, or the last weights if none is saved; save the results."""
    predictions = PredictionCollector()
    folder = run.folder if run else None
    trainer = experiment.make_trainer(callbacks=[predictions, session.summary], folder=folder)
    trainer.test(experiment.model, experiment.data, ckpt_path=session.best, verbose=False)
    results = predictions.test_results(trainer)
    if results:
        _save_test(results, predictions.table(), experiment, run, session)
    return results | _fit_temperature(experiment)


def _save_test(
    results: dict[str, float],
    table: PredictionsTable,
    experiment: Experiment,
    run: Run | None,
    session: TrainingSession,
) -> None:
    """Write the results of the test to the logs, the dashboards and the run directory."""
    step = session.trainer.global_step
    if session.logger is not None:
        metrics = {name: results[name] for name in ("test/loss", "test/accuracy")}
        session.logger.log_metrics(metrics, step)
    if session.dashboards is not None:
        session.dashboards.show_test(experiment.model, experiment.data, table, step)
    if run is not None and distributed.is_rank_zero():
        write_predictions(table, run.predictions)


def _fit_temperature(experiment: Experiment) -> dict[str, float]:
    """Fit the temperature of the tested weights on the validation set.

    Return an empty dict if there are too few validation images, or the network diverged.
    """
    predictions = PredictionCollector()
    trainer = experiment.make_trainer(callbacks=[predictions])
    trainer.validate(experiment.model, experiment.data, verbose=False)
    if predictions.total < MIN_IMAGES_FOR_TEMPERATURE:
        return {}
    table = predictions.table()
    if not np.isfinite(table.probabilities).all():
        return {}
    return {"temperature": as_float(temperature(table.probabilities, table.true))}


def _show_hyperparameters(
    experiment: Experiment, session: TrainingSession, results: dict[str, float]
) -> None:
    """Show the hyperparameters and the results in the dashboards."""
    if session.dashboards is not None:
        config = experiment.config
        settings = reproducibility_key(config) | {"seed": config["seed_everything"]}
        metrics = _final_metrics(session.summary.facts | results)
        session.dashboards.show_hyperparameters(settings, metrics, session.trainer.global_step)


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
    """Describe the progress of the last checkpoint of a run."""
    if run is None or not run.recent().exists():
        return "Nothing is saved: there was no checkpoint yet."
    return f"Saved through {progress(read_checkpoint(run.recent()))} in {run.folder}."
