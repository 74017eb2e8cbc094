"""One run from its first step, or from a checkpoint, to its closing table."""

from pathlib import Path

from lightning.pytorch.callbacks import Callback
from rich.console import Console

from mnist_lightning import show
from mnist_lightning.callbacks.checkpoints import RunCheckpoints
from mnist_lightning.callbacks.interrupt import Interrupt
from mnist_lightning.callbacks.predictions import Predictions
from mnist_lightning.callbacks.progress import ProgressLines
from mnist_lightning.callbacks.random_state import RandomState
from mnist_lightning.callbacks.summary import RunSummary
from mnist_lightning.errors import UserError
from mnist_lightning.networks import ask_blank
from mnist_lightning.parsing import DigitCLI
from mnist_lightning.run_logger import RunLogger
from mnist_lightning.runs import Run
from mnist_lightning.tables import write_predictions

INTERRUPTED = 130  # 128 and the number of the signal, as shells have it


def train(cli: DigitCLI, run: Run | None, checkpoint: Path | None = None, epochs: int = 0) -> int:
    """Fit, test the best checkpoint, keep and show the figures; return the exit status.

    Args:
        cli: the data, the model and the options.
        run: where to keep everything; None keeps nothing.
        checkpoint: where to go on from, and
        epochs: how many epochs are behind it.
    """
    console = Console()
    config = cli.complete_config()
    predictions, interrupt = Predictions(), Interrupt()
    facts = RunSummary(run, config["seed_everything"], epochs)
    bar = config["trainer"]["enable_progress_bar"] is not False
    lines = ProgressLines(console, bar, config["log_lines"])
    callbacks: list[Callback] = [lines, RandomState(), predictions, facts, interrupt]
    logger, checkpoints = None, None
    if run is not None:
        run.write_config(config)
        if config["trainer"]["logger"] in (None, True):
            logger = RunLogger(run.folder, cli.datamodule.data.name)
        if config["trainer"]["enable_checkpointing"] is not False:
            checkpoints = RunCheckpoints(run, config)
            callbacks.append(checkpoints)
    best = run.best if run is not None and checkpoints is not None else None
    folder = run.folder if run is not None else None
    trainer = cli.make_trainer(logger, callbacks, folder)
    layers = config["trainer"]["enable_model_summary"] is not False
    show.opening(console, cli.model, cli.datamodule, trainer, run, layers)
    status = 0
    try:
        try:
            with interrupt.awaited():
                trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint)
        except SystemExit:  # how Lightning ends after Ctrl-C
            # To interrupt a run without an end is the way to end it.
            if trainer.max_epochs != -1 or best is None or not best.exists():
                raise
            status = INTERRUPTED
            line = f"interrupted after epoch {facts.facts['epochs']}: testing the best checkpoint"
            show.line(console, line)
            trainer = cli.make_trainer(logger, [predictions], folder)
        trainer.test(cli.model, cli.datamodule, ckpt_path=best, verbose=False)
    except SystemExit:
        show.interrupted(console, run, facts.facts["epochs"])
        return INTERRUPTED
    finally:
        if logger is not None:
            logger.close()
    figures = predictions.figures(trainer)
    facts.finish(
        "interrupted" if status else "finished", checkpoints.best if checkpoints else {}, figures
    )
    if run is not None and figures:
        write_predictions(predictions.table(), run.predictions)
    show.closing(console, facts.facts, run, cli.root)
    return status


def refuse_what_cannot_train(cli: DigitCLI) -> None:
    """Find before a run has a folder what would end its training at once.

    Raises:
        UserError: the options leave nothing to train, or the network does not fit the data.
    """
    trainer = cli.make_trainer()
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
