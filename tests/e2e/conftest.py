"""A short run, whose files others change."""

import pytest

from mnist_lightning.runs.run_directory import Run
from tests.conftest import DIGITS, Train

SHORT = ["--trainer.limit_train_batches", "2", "--dashboards", "none"]
FIT = ["fit", *DIGITS, *SHORT, "--trainer.max_epochs", "1", "--model.network", "TinyCNN"]
LONGER = ["resume", "0", "--trainer.max_epochs", "2"]


@pytest.fixture
def trained(trained_run: Train, run_0: Run) -> Run:
    """A run of one short epoch."""
    trained_run(*FIT[1:])
    return run_0
