"""Short runs, and a network of the user's own."""

from pathlib import Path

import pytest

from mnist_lightning.runs.run_directory import Run
from tests import processes
from tests.conftest import DIGITS, AddRun, Result

SHORT = ["--trainer.limit_train_batches", "2", "--dashboards", "none"]
FIT = ["fit", *DIGITS, *SHORT, "--trainer.max_epochs", "1"]
FIT_MLP = [*FIT, "--model.network", "MultilayerPerceptron"]
OWN_NETWORK = ["--model.network", "net.Network"]


@pytest.fixture
def trained(add_run: AddRun, run_0: Run) -> Run:
    """A short run of this user."""
    add_run(*FIT_MLP[1:])
    return run_0


@pytest.fixture
def own_network(tmp_path: Path) -> Path:
    """Return a directory with a network that creates the file `imported` when it is imported."""
    write_network(tmp_path / "net.py", tmp_path / "imported")
    return tmp_path


def write_network(path: Path, marker: Path) -> None:
    """Write a module with a network, which creates `marker` when it is imported."""
    path.write_text(
        "from pathlib import Path\n"
        "from mnist_lightning.networks.multilayer_perceptron import MultilayerPerceptron\n"
        f"Path({str(marker)!r}).touch()\n"
        "class Network(MultilayerPerceptron):\n"
        "    pass\n"
    )


def run_command(folder: Path, *arguments: str, home: Path | None = None) -> Result:
    """Run a command in a process, which can import modules of its directory."""
    (folder / "printed").unlink(missing_ok=True)
    environment = {"XDG_CONFIG_HOME": str(home)} if home else {}
    status = processes.run(list(arguments), folder, environment=environment)
    output = processes.read_output(folder)
    return Result(status, output, output)
