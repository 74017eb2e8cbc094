"""The files and the study of a sweep."""

import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from mnist_lightning.runs import trusted_paths
from tests.conftest import DIGITS

SPACE = """
model.network: {choice: [MultilayerPerceptron]}
model.optimizer.init_args.lr: {choice: [0.01, 0.003, -1.0]}
"""
BASE = "model: {optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.001}}}\n"
SWEEP = ["sweep", "--config", "base.yaml", "--space", "space.yaml", *DIGITS]
SWEEP += ["--trainer.max_epochs", "2", "--dashboards", "none", "--trainer.accelerator", "cpu"]

# Two steps of training, and a sweep of one such trial.
SHORT = [*DIGITS, "--trainer.limit_train_batches", "2", "--trainer.max_epochs", "1"]
SHORT_SWEEP = ["sweep", "--space", "space.yaml", "--trials", "1", *SHORT]


@pytest.fixture
def sweep_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with the files of a sweep."""
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "space.yaml").write_text(SPACE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start_sweep(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start a sweep in a process."""
    return start_process(folder, *SWEEP, *options)


def start_process(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a command in a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_lightning", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"COLUMNS": "100"},
    )


def create_study(folder: Path) -> optuna.Study:
    """Create the study of a sweep of this user that has not started."""
    database = folder / "lightning_logs" / "sweeps" / "space" / "study.db"
    database.parent.mkdir(parents=True)
    trusted_paths.remember(database)
    storage = f"sqlite:///{database}"
    return optuna.create_study(study_name="space", storage=storage, direction="maximize")


def read_trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """Return the trials of a sweep."""
    file = folder / "lightning_logs" / "sweeps" / "space" / "study.db"
    return optuna.load_study(study_name="space", storage=f"sqlite:///{file}").trials
