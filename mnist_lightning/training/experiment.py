"""What is trained, how it is displayed, and what it returns."""

from typing import Any, NamedTuple, Protocol

from lightning.pytorch import Trainer
from rich.console import Console

from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.runs.config import Config
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.training.lightning_module import DigitClassifier
from mnist_lightning.training.trainer_factory import TrainerFactory


class Experiment(NamedTuple):
    """A model, its data set and its configuration.

    Attributes:
        model: the network with its loss and its optimizer.
        data: the data set.
        make_trainer: creates trainers with the options of the configuration.
        config: the complete configuration, in primitives.
        own: whether the configuration is the user's; otherwise the run is not signed.
    """

    model: DigitClassifier
    data: MNISTDataModule
    make_trainer: TrainerFactory
    config: Config
    own: bool


class Result(NamedTuple):
    """The result of a training.

    Attributes:
        summary: the content of `summary.json`; None if the run was interrupted before its test.
        steps: optimizer steps in total.
        status: the exit status of the process.
    """

    summary: dict[str, Any] | None
    steps: int
    status: int


class Reporter(Protocol):
    """Displays a run during training."""

    console: Console

    def show_start(self, experiment: Experiment, trainer: Trainer, run: Run | None) -> None:
        """Show the network, the data set and the run directory."""

    def show_line(self, text: str) -> None:
        """Show one line."""

    def show_interruption(self, run: Run | None, saved: str) -> None:
        """Show the last checkpoint of an interrupted run, and how to resume it."""
