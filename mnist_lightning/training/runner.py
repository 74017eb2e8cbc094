"""Train a run: fit it, test its best checkpoint, save its results."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mnist_lightning import distributed
from mnist_lightning.data.datasets import NOT_DIGITS
from mnist_lightning.data.synthetic import draw_non_digits
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.networks.calibration import fit_calibration, fit_temperature
from mnist_lightning.networks.inspection import compute_logits
from mnist_lightning.preprocessing.normalization import normalize
from mnist_lightning.runs.checkpoint import read_checkpoint
from mnist_lightning.runs.config import is_unbounded
from mnist_lightning.runs.predictions_csv import write_predictions
from mnist_lightning.runs.recent_checkpoints import progress
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.runs.signature import key_path
from mnist_lightning.training.callbacks.checkpointing import RunCheckpoints
from mnist_lightning.training.callbacks.epoch_snapshots import EpochSnapshots
from mnist_lightning.training.callbacks.graceful_shutdown import GracefulShutdown
from mnist_lightning.training.callbacks.prediction_collector import PredictionCollector
from mnist_lightning.training.callbacks.progress import ProgressLines
from mnist_lightning.training.callbacks.rng_state import RandomState
from mnist_lightning.training.callbacks.run_summary import RunSummary
from mnist_lightning.training.callbacks.tensorboard import Dashboards
from mnist_lightning.training.config_loggers import log_results
from mnist_lightning.training.exact_resume import unverified_parts
from mnist_lightning.training.experiment import Experiment, Reporter, Result
from mnist_lightning.training.fast_epoch_loop import disable_nvml_check
from mnist_lightning.training.hyperparameters import select_hyperparameters
from mnist_lightning.training.logger import RunLogger, as_float
from mnist_lightning.training.trainer_factory import PROFILE

MAX_MESSAGE_CHARS = 300  # of another library's error message
MIN_IMAGES_TO_CALIBRATE = 100  # a network may classify fewer images without an error
NUM_NON_DIGITS = 300  # for the calibration; drawing them takes 0.2 s
MAX_PROFILE_LINES = 60
_TEST_METRICS = ("test/loss", "test/accuracy")


class TrainingSession(NamedTuple):
    """A training: what is trained and where, its trainer, and the callbacks used afterwards."""

    experiment: Experiment
    reporter: Reporter
    run: Run | None
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

    def final_results(self, test: dict[str, float]) -> dict[str, float]:
        """Return the results to log after a run: of its test, and of its best checkpoint."""
        results = {name: test.get(name) for name in _TEST_METRICS} | {
            f"final/{name.replace('/', '_')}": self.summary.facts[name]
            for name in ("val/accuracy", "val/loss", "fit_seconds")
        }
        return {name: value for name, value in results.items() if value is not None}


def train(
    experiment: Experiment,
    reporter: Reporter,
    run: Run | None,
    checkpoint: Path | None = None,
    init_from: str | None = None,
) -> Result:
    """Fit, test the best checkpoint, and save the results.

    Args:
        experiment: what to train.
        reporter: displays it.
        run: the run directory; None saves nothing.
        checkpoint: the checkpoint to resume from, one of `experiment.make_trainer.loaded`.
        init_from: the run that the initial weights are from, if any.

    Raises:
        UserError: the disk is full, or another process of the run has ended.
    """
    disable_nvml_check()
    epochs = progress(experiment.make_trainer.loaded[checkpoint]).epochs if checkpoint else 0
    session = _build_session(experiment, reporter, run, epochs, init_from)
    reporter.show_start(experiment, session.trainer, run)
    try:
        with _report_failures(run):
            state = _fit(session, checkpoint)
            _show_profile(session)
            results = _test(session) | _fit_calibration(experiment)
            _show_hyperparameters(session, results)
            if run is not None:
                finals = session.final_results(results)
                log_results(experiment.make_trainer.loggers, finals, session.trainer.global_step)
            if session.logger is not None:
                session.logger.flush()
            # Last, because a run in the state `finished` must be complete.
            session.summary.finish(state, results)
    except SystemExit as error:
        if isinstance(error, SIGTERMException):  # during the test, Lightning handles the signal
            session.shutdown.signal = session.shutdown.signal or SIGTERM
        reporter.show_interruption(run, _saved(run))
        return Result(None, session.trainer.global_step, session.status)
    finally:
        experiment.data.teardown("fit")  # Lightning omits it after an interrupt
        if session.logger is not None:
            session.logger.close()
    status = 0 if state == "finished" else session.status
    return Result(session.summary.facts, session.trainer.global_step, status)


def _build_session(
    experiment: Experiment, reporter: Reporter, run: Run | None, epochs: int, init_from: str | None
) -> TrainingSession:
    config, own = experiment.config, experiment.own
    shutdown = GracefulShutdown()
    show_bar = config["trainer"]["enable_progress_bar"] is not False
    # A bar of the configuration takes the place of the run's own.
    show_bar &= not any(isinstance(c, ProgressBar) for c in experiment.make_trainer.callbacks)
    progress_lines = ProgressLines(reporter.console, show_bar, config["log_lines"])
    callbacks: list[Callback] = [progress_lines, RandomState()]
    # Only the first process writes.
    output_run = run if distributed.is_rank_zero() else None
    logger, dashboards, checkpoints = None, None, None
    if output_run is not None:
        if not own:
            reporter.show_line(
                "This run is from elsewhere and is not signed; add --trust to sign it."
            )
        if not output_run.write_config(config, sign=own) and own:
            problem = f"This run is not signed: no key can be stored as {key_path()}"
            reporter.show_line(f"{problem}. Make that path writable.")
        output_run.predictions.unlink(missing_ok=True)  # they belong to earlier weights
        if config["trainer"]["logger"] in (None, True):
            logger = RunLogger(output_run.folder, experiment.data.data.name)
    if run is not None and config["dashboards"] != "none":
        predictions = PredictionCollector()
        callbacks.append(predictions)
        if logger is not None:
            dashboards = Dashboards(logger, predictions, config["dashboards"])
            callbacks.append(dashboards)
        if output_run is not None:
            # After the dashboards: they copy the network, which fails once a profiler has seen it.
            callbacks.append(EpochSnapshots(output_run, predictions, epochs))
    if run is not None and config["trainer"]["enable_checkpointing"] is not False:
        chosen = {name: config[name] for name in ("keep_last", "autosave", "tested_epoch")}
        checkpoints = RunCheckpoints(run, config, shutdown, **chosen)
        callbacks += [shutdown, checkpoints]
    unverified = unverified_parts(config)
    if unverified and checkpoints is not None and distributed.is_rank_zero():
        reporter.show_line(f"Exact resume is not verified with {', '.join(unverified)}.")
    summary = RunSummary(
        output_run, config["seed_everything"], epochs, checkpoints, init_from, exact=not unverified
    )
    loggers = experiment.make_trainer.loggers if logger is None else [logger]
    folder = run.folder if run else None
    trainer = experiment.make_trainer(loggers, [*callbacks, summary], folder)
    best = run.best if run is not None and checkpoints is not None else None
    parts = (trainer, summary, shutdown, logger, dashboards, best)
    return TrainingSession(experiment, reporter, run, *parts)


def _fit(session: TrainingSession, checkpoint: Path | None) -> str:
    """Train; return `finished`, or `interrupted` if the best checkpoint is still to be tested.

    Raises:
        SystemExit: training was interrupted, without a test.
    """
    model, data, _, config, _ = session.experiment
    try:
        session.trainer.fit(model, datamodule=data, ckpt_path=checkpoint)
        if session.shutdown.is_requested(session.trainer):  # after the last step
            raise SystemExit
    except SystemExit:  # raised by Lightning after Ctrl-C
        # An unbounded run always ends by an interrupt. SIGTERM leaves no time for a test.
        testable = session.best is not None and session.best.exists()
        if not is_unbounded(config) or session.shutdown.signal == SIGTERM or not testable:
            raise
        saved = _saved(session.run)
        session.reporter.show_line(f"Interrupted. {saved} Testing the best checkpoint.")
        return "interrupted"
    return "finished"


def _show_profile(session: TrainingSession) -> None:
    """Show the report that a profiler has written into the run directory."""
    if session.run is not None and distributed.is_rank_zero():
        for path in sorted(session.run.folder.glob(f"fit-{PROFILE}*.txt")):
            lines = path.read_text().strip().splitlines()
            rest = [f"… {len(lines) - MAX_PROFILE_LINES:,} more lines"]
            shown = lines[:MAX_PROFILE_LINES] + rest * (len(lines) > MAX_PROFILE_LINES)
            session.reporter.show_line("\n".join([*shown, f"profile: {path}"]))


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


def _test(session: TrainingSession) -> dict[str, float]:
    """Test the best checkpoint, or the last weights if none is saved; save the results."""
    predictions, run = PredictionCollector(), session.run
    model, data, make_trainer, *_ = session.experiment
    folder = run.folder if run else None
    trainer = make_trainer(callbacks=[predictions, session.summary], folder=folder)
    trainer.test(model, data, ckpt_path=session.best, verbose=False)
    if predictions.total == 0:  # --trainer.limit_test_batches 0
        return {}
    results = {name: as_float(trainer.callback_metrics[name]) for name in _TEST_METRICS}
    table, step = predictions.table(), session.trainer.global_step
    if session.logger is not None:
        session.logger.log_metrics(results, step)
    if session.dashboards is not None:
        session.dashboards.show_test(model, data, table, step)
    if run is not None and distributed.is_rank_zero():
        write_predictions(table, run.predictions)
    return results | {"test/correct": int(table.correct.sum()), "test/total": len(table.true)}


def _fit_calibration(experiment: Experiment) -> dict[str, float]:
    """Fit the calibration of the tested weights on the validation set.

    Return an empty dict if there are too few validation images, or the network diverged.
    """
    predictions = PredictionCollector()
    trainer = experiment.make_trainer(callbacks=[predictions])
    trainer.validate(experiment.model, experiment.data, verbose=False)
    if predictions.total < MIN_IMAGES_TO_CALIBRATE:
        return {}
    table = predictions.table()
    if not np.isfinite(table.probabilities).all():
        return {}
    probabilities = table.probabilities
    if probabilities.shape[1] != 10 or experiment.data.data.name in NOT_DIGITS:
        return {"temperature": as_float(fit_temperature(probabilities, table.true))}
    images = normalize(torch.from_numpy(draw_non_digits(NUM_NON_DIGITS, seed=1)))
    others = compute_logits(experiment.model.network, images).float().softmax(dim=1).cpu().numpy()
    fitted = fit_calibration(probabilities, table.true, others)
    return {name: as_float(value) for name, value in fitted._asdict().items()}


def _show_hyperparameters(session: TrainingSession, results: dict[str, float]) -> None:
    """Show the hyperparameters and the results in the dashboards."""
    if session.dashboards is not None:
        experiment = session.experiment
        settings = select_hyperparameters(experiment.config, experiment.data.data.name)
        finals, step = session.final_results(results), session.trainer.global_step
        session.dashboards.show_hyperparameters(settings, finals, step)


def _saved(run: Run | None) -> str:
    """Describe the progress of the last checkpoint of a run."""
    if run is None or not run.recent().exists():
        return "Nothing is saved: there was no checkpoint yet."
    return f"Saved through {progress(read_checkpoint(run.recent()))} in {run.folder}."
