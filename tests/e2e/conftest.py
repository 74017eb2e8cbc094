"""A short run, whose files others change."""

import pytest

from mnist_lightning.runs.run_directory import Run
from tests.conftest import DIGITS, Command

SHORT = ["--trainer.limit_train_batches", "2", "--dashboards", "none"]
FIT = ["fit", *DIGITS, *SHORT, "--trainer.max_epochs", "1", "--model.network", "TinyCNN"]
LONGER = ["resume", "0", "--trainer.max_epochs", "2"]


@pytest.fixture
def trained(command: Command, run_0: Run) -> Run:
    """A run of one short epoch."""
    assert command(*FIT).status == 0
    return run_0
