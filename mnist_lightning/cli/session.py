"""What `fit` and `resume` share: prepare a run, lock it, train it, show the results."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from mnist_lightning import distributed
from mnist_lightning.cli import console
from mnist_lightning.cli.lightning_cli import DigitCLI
from mnist_lightning.cli.watch_page import WatchPage
from mnist_lightning.runs.config import Config
from mnist_lightning.runs.recovery import rename_damaged_lock
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import say
from mnist_lightning.training.config_loggers import log_location, log_settings
from mnist_lightning.training.exact_resume import check_callbacks
from mnist_lightning.training.experiment import Experiment
from mnist_lightning.training.lightning_module import DigitClassifier
from mnist_lightning.training.preflight import preflight_check
from mnist_lightning.training.runner import train


def prepare(cli: DigitCLI) -> None:
    """Join the processes of the run, load the data, and check that the run can be trained."""
    check_callbacks(cli.make_trainer.callbacks, cli.config.trainer.accumulate_grad_batches)
    trainer = cli.make_trainer()
    distributed.join(trainer)
    cli.load_data()
    distributed.run_on_rank_zero(
        lambda: preflight_check(cli.model, cli.datamodule, trainer, cli.complete_config(), cli.root)
    )


def start_loggers(cli: DigitCLI, resumed: bool = False) -> None:
    """Log the settings of a run with the loggers that it names, before its training.

    Raises:
        UserError: one of them cannot write.
    """
    loggers = cli.make_trainer.loggers
    if distributed.is_rank_zero() and cli.config.trainer.enable_autolog_hparams:
        log_settings(loggers, cli.complete_config())
    for logger in loggers if resumed and distributed.is_rank_zero() else ():
        say(f"{type(logger).__name__} starts a new log: {log_location(logger)}")


def run_lock(run: Run) -> AbstractContextManager[Any]:
    """Lock a run; the first of its processes holds the lock."""
    locks: list[AbstractContextManager[Any]] = [nullcontext()]

    def acquire() -> None:
        if distributed.is_rank_zero():  # the processes may not be joined yet
            rename_damaged_lock(run)
            locks[0] = run.lock()

    distributed.run_on_rank_zero(acquire)
    return locks[0]


def train_and_show(
    cli: DigitCLI,
    run: Run | None,
    page: WatchPage,
    checkpoint: Path | None = None,
    init_from: str | None = None,
) -> int:
    """Train a run and show its results; return the exit status."""
    page.follow(run, cli.root)
    config = cli.complete_config()
    experiment = Experiment(cli.model, cli.datamodule, cli.make_trainer, config, cli.own)
    reporter = console.ConsoleReporter()
    result = train(experiment, reporter, run, checkpoint, init_from)
    if result.summary is not None:
        longer = suggest_resume_option(cli.model, config, result.summary["epochs"], result.steps)
        loggers = cli.make_trainer.loggers if run is not None else []
        console.show_results(reporter.console, result.summary, run, cli.root, longer, loggers)
    return result.status


def suggest_resume_option(
    model: DigitClassifier, config: Config, epochs: int, steps: int
) -> str | None:
    """Return the option with which `resume` doubles the length of a finished run.

    None if its learning-rate schedule spans the run, so that it cannot be extended.
    """
    if model.schedule_needs_run_length:
        return None
    by_steps = 0 < config["trainer"]["max_steps"] <= steps
    name, done = ("max_steps", steps) if by_steps else ("max_epochs", epochs)
    return f"--trainer.{name} {2 * done}"
