"""Sweeps that share a PostgreSQL server, whose processes and server are killed."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import psutil
import pytest
from sqlalchemy.pool import NullPool

from mnist_lightning.runs.metrics_csv import METRICS_FILE, read_metrics
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.tuning.database_url import parse_url
from tests.conftest import Command
from tests.postgresql_server import (
    PASSWORD,
    PASSWORD_IN_URL,
    USER,
    PostgresqlServer,
    start_postgresql,
)
from tests.tuning.conftest import SHORT_SWEEP, start_process

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
ENDLESS = ["sweep", "--space", "space.yaml", "--trials", "1", "--data.dataset", "digits"]
ENDLESS += ["--trainer.max_epochs", "1000000", "--dashboards", "none", "--name", "endless"]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    """A running server."""
    with start_postgresql() as started:
        if started is None:
            pytest.skip("PostgreSQL is not installed on this machine, or cannot run")
        yield started


def load_study(server: PostgresqlServer, name: str) -> optuna.Study:
    """Return a study, whose storage keeps no connection open."""
    url = parse_url(server.url()).render_as_string(hide_password=False)
    escaped = url.replace("{", "{{").replace("}", "}}")
    storage = optuna.storages.RDBStorage(escaped, engine_kwargs={"poolclass": NullPool})
    return optuna.load_study(study_name=name, storage=storage)


def test_two_sweeps_lose_and_repeat_no_trial_after_kills(server: PostgresqlServer) -> None:
    """Run the benchmark with fewer trials; it starts its own server."""
    script = [sys.executable, str(ROOT / "benchmarks" / "sweep_kills.py")]
    counts = ["--folders", "2", "--workers", "2", "--trials", "10", "--kills", "4"]
    done = subprocess.run([*script, *counts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "statuses [0, 0]; trials recorded: 10 " in done.stdout, done.stdout
    assert "lost: 0; duplicates: 0; wrong: 0" in done.stdout, done.stdout
    for kind in ("trial", "sweep", "group", "database"):
        assert f"'{kind}': 1" in done.stdout


class EndlessSweep:
    """A sweep of one trial that trains until it is stopped."""

    def __init__(self, server: PostgresqlServer, folder: Path) -> None:
        (folder / "space.yaml").write_text("data.batch_size: {choice: [256]}\n")
        self.server = server
        self.run = Run(folder / "lightning_logs" / "version_0")
        self.output = folder / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mnist_lightning", *ENDLESS, "--storage", server.url()],
                cwd=folder,
                stdout=output,
                stderr=output,
            )

    def count(self, text: str) -> int:
        """Return how often a text was printed."""
        return self.output.read_text().count(text)

    def trained(self) -> int:
        """Return the number of epochs of the trial."""
        return sum(1 for row in read_metrics(self.run.folder / METRICS_FILE) if row["val/accuracy"])

    def reported(self) -> int:
        """Return the number of epochs in the database."""
        trials = load_study(self.server, "endless").trials
        return len(trials[0].intermediate_values) if trials else 0

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition is true, as long as the sweep runs."""
        while not condition():
            assert self.process.poll() is None, self.output.read_text()
            time.sleep(0.05)


def test_a_trial_trains_while_the_server_is_stopped_and_its_epochs_are_reported(
    server: PostgresqlServer, sweep_folder: Path
) -> None:
    sweep = EndlessSweep(server, sweep_folder)
    sweep.wait_for(lambda: sweep.trained() > 0 and sweep.reported() > 0)
    (trial,) = psutil.Process(sweep.process.pid).children()
    server.stop("immediate")
    sweep.wait_for(lambda: sweep.count("is not reachable") == 1)
    before = sweep.trained()
    sweep.wait_for(lambda: sweep.trained() > before)
    server.start()
    sweep.wait_for(lambda: sweep.count("is reachable again") == 1)
    sweep.wait_for(lambda: sweep.reported() > before)
    assert trial.is_running()
    # If it is terminated while the server is stopped, it ends, and its trial is saved.
    server.stop()
    sweep.wait_for(lambda: sweep.count("is not reachable") == 2)
    sweep.process.send_signal(signal.SIGTERM)
    status = sweep.process.wait()
    server.start()
    assert status == 128 + signal.SIGTERM
    assert not trial.is_running()
    assert any(sweep.run.checkpoints.glob("last*.ckpt"))
    message = sweep.output.read_text().splitlines()[-1]
    assert "The sweep ended while the database postgresql://tester:***@/" in message
    assert "repeat the command to continue" in message


def test_a_password_is_neither_printed_nor_stored(
    server: PostgresqlServer, sweep_folder: Path
) -> None:
    (sweep_folder / "space.yaml").write_text("data.batch_size: {choice: [32]}\n")
    secrets = (PASSWORD, PASSWORD_IN_URL)
    sweep = start_process(sweep_folder, *SHORT_SWEEP, "--name", "secret", "--storage", server.url())
    seen = []
    while sweep.poll() is None:
        for child in psutil.Process(sweep.pid).children(recursive=True):
            try:
                seen.append(repr(child.cmdline()))
            except psutil.Error:  # it has ended
                continue
        time.sleep(0.05)
    printed, _ = sweep.communicate()
    assert sweep.returncode == 0, printed
    assert any("--run_dir" in each for each in seen)
    files = [path for path in sweep_folder.rglob("*") if path.is_file()]
    assert {"config.yaml", "best.yaml", "trial_0.log"} <= {path.name for path in files}
    contents = [path.read_bytes().decode(errors="replace") for path in files]
    study = load_study(server, "secret")
    contents += [printed, *seen, repr(study.user_attrs), repr(study.trials)]
    assert not [text[:200] for text in contents for secret in secrets if secret in text]


@pytest.mark.parametrize(
    ("database", "password", "message"),
    [
        (
            "postgres",
            "wr0ng",
            f'password authentication failed for user "{USER}". Correct the user',
        ),
        ("missing", None, 'database "missing" does not exist. Create the database: createdb'),
    ],
)
def test_a_refused_connection_is_reported_in_one_line(
    server: PostgresqlServer,
    command: Command,
    sweep_folder: Path,
    database: str,
    password: str | None,
    message: str,
) -> None:
    url = server.url(database, *([password] if password else []))
    for options in ([], ["--debug"]):
        result = command(*SHORT_SWEEP, "--storage", url, *options)
        assert result.status == 1
        assert message in result.err
        assert result.err.count("\n") == 1 or options
        assert "wr0ng" not in result.err
        assert PASSWORD not in result.err
