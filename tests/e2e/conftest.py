"""Short runs: their options, and fixtures that train them."""

import pytest

from mnist_lightning.runs.run_directory import Run
from tests import processes
from tests.conftest import DIGITS, AddRun
from tests.e2e import exact_resume

SHORT = ["--trainer.limit_train_batches", "2", "--dashboards", "none"]
FIT = ["fit", *DIGITS, *SHORT, "--trainer.max_epochs", "1", "--model.network", "TinyCNN"]
LONGER = ["resume", "0", "--trainer.max_epochs", "2"]


@pytest.fixture
def trained(add_run: AddRun, run_0: Run) -> Run:
    """A run of one short epoch."""
    add_run(*FIT[1:])
    return run_0


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> exact_resume.Uninterrupted:
    """Return the function that trains with a key of `OPTIONS`, once per key."""
    states: dict[str, exact_resume.FinalState] = {}

    def train(name: str) -> exact_resume.FinalState:
        if name not in states:
            folder = tmp_path_factory.mktemp("uninterrupted")
            command = [*exact_resume.FIT, *exact_resume.OPTIONS[name]]
            assert processes.run(command, folder) == 0, processes.read_output(folder)
            states[name] = exact_resume.FinalState(folder)
        return states[name]

    return train
