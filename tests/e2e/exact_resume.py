"""The runs of the tests of exact resume: their options and their final states."""

from collections.abc import Callable
from pathlib import Path

from mnist_lightning.runs.run_directory import Run
from tests.cli.checks import assert_equal, load_checkpoint, read_logs
from tests.conftest import DIGITS
from tests.processes import CHECKPOINTING, CLASSIFIER, SignalPoint, at_step

BATCHES = 13  # per epoch of 1,300 digits
EPOCHS = 3
FIT = ["fit", *DIGITS, "--trainer.max_epochs", str(EPOCHS), "--trainer.log_every_n_steps", "2"]
OPTIONS = {
    "plain": [],
    "workers": ["--data.num_workers", "2"],
    "autosave": ["--autosave", "0"],  # saves after each step
    "autosave and workers": ["--autosave", "0", "--data.num_workers", "2"],
    "accumulation, a schedule by step": [
        *("--autosave", "0", "--trainer.accumulate_grad_batches", "4"),
        *("--model.lr_scheduler", "OneCycle"),
    ],
    "validation within the epoch, a plateau": [
        *("--autosave", "0", "--trainer.val_check_interval", "4"),
        *("--model.lr_scheduler", "ReduceLROnPlateau", "--model.lr_scheduler.patience", "0"),
    ],
    "a moving average of the weights": [
        *("--autosave", "0", "--model.network", "BatchNormCNN"),
        *("--trainer.callbacks", "ExponentialMovingAverage", "--trainer.callbacks.decay", "0.8"),
    ],
    "a teacher": [
        *("--autosave", "0", "--model.network", "MultilayerPerceptron"),
        *("--teacher", "pretrained"),
    ],
}
# Where a signal interrupts the second epoch.
SIGNAL_POINTS = {
    "in a step": at_step(BATCHES + 6),
    "in the last step": at_step(2 * BATCHES),
    "before validation": SignalPoint(
        CLASSIFIER, "DigitClassifier.on_train_batch_end", 2 * BATCHES, after=True
    ),
    "in validation": SignalPoint(CLASSIFIER, "DigitClassifier.validation_step", 2),
    "after validation": SignalPoint(
        CLASSIFIER, "DigitClassifier.on_validation_epoch_end", 2, after=True
    ),
    "at the end of the epoch": SignalPoint(
        CHECKPOINTING, "RunCheckpoints.on_epoch_completed", 2, after=True
    ),
}


def first_run(folder: Path) -> Run:
    """Return the run of the first `fit` in a folder."""
    return Run(folder / "lightning_logs" / "version_0")


class FinalState:
    """The checkpoints, logs and predictions of a finished run.

    Args:
        folder: the working directory of the command that made the run.
    """

    def __init__(self, folder: Path) -> None:
        self.run = first_run(folder)
        self.last, self.best = load_checkpoint(self.run.recent()), load_checkpoint(self.run.best)
        self.logs = read_logs(self.run)
        self.predictions = self.run.predictions.read_bytes()

    def assert_equals(self, folder: Path) -> None:
        """Check that the run in another folder has equal checkpoints, logs and predictions."""
        other = FinalState(folder)
        assert_equal(other.last, self.last)
        assert_equal(other.best, self.best)
        assert other.logs == self.logs
        assert other.predictions == self.predictions


Uninterrupted = Callable[[str], FinalState]
