"""Runs and exports of a former version (commit 8b39800) are read, tested and resumed.

`former/runs_0.1.0.zip` contains the `lightning_logs` of that version: a finished run with three
exports, and a run that was interrupted within its second epoch. Both are not signed by this user.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from mnist_lightning import load
from mnist_lightning.runs.former_versions import FORMER_NAMES
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.training.registry import COMPONENTS
from tests.conftest import Command
from tests.images import draw_seven

FORMER = Path(__file__).parent / "former" / "runs_0.1.0.zip"


@pytest.fixture
def former_run(run_0: Run) -> Run:
    """A finished run in `lightning_logs`, beside an interrupted one."""
    with zipfile.ZipFile(FORMER) as archive:
        archive.extractall(run_0.folder.parent)
    return run_0


def test_a_finished_run_is_tested_with_the_same_result(command: Command, former_run: Run) -> None:
    before = former_run.summary()["test/accuracy"]
    result = command("test", "0")
    assert result.status == 0, result.err
    assert f"{100 * before:.2f} %" in result.out
    assert command("validate", "0").status == 0


def test_a_finished_run_is_trained_further(command: Command, former_run: Run) -> None:
    result = command("resume", "0", "--trainer.max_epochs", "4")
    assert result.status == 0, result.err
    assert "damaged" not in result.out
    assert former_run.summary()["epochs"] == 4


def test_an_interrupted_run_is_finished(command: Command, former_run: Run) -> None:
    result = command("resume", "1")
    assert result.status == 0, result.err
    assert "damaged" not in result.out
    interrupted = Run(former_run.folder.with_name("version_1"))
    assert interrupted.summary()["state"] == "finished"


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt", "model.safetensors"])
def test_its_weights_read_the_same_digit(former_run: Run, name: str) -> None:
    path = next(former_run.folder.rglob(name))
    reading = load(path).predict(draw_seven())
    expected = load(former_run.best).predict(draw_seven())
    if name != "last.ckpt":
        assert np.allclose(reading.probabilities, expected.probabilities, atol=1e-6)
    assert len(reading.probabilities) == 10


def test_it_is_listed_reported_and_exported(command: Command, former_run: Run) -> None:
    listed = json.loads(command("runs", "--json").out)
    assert [row["state"] for row in listed] == ["interrupted", "finished"]
    for arguments in (["report", "0"], ["runs", "0", "1"], ["export", "0", "--format", "pth"]):
        result = command(
            *arguments, *(["--check_images", "20"] if arguments[0] == "export" else [])
        )
        assert result.status == 0, (arguments, result.err)


@pytest.mark.parametrize(
    ("name", "value"), [("processed", torch.tensor([1, 2])), ("is_last_batch", torch.zeros(3))]
)
def test_a_checkpoint_with_invalid_counters_is_damaged(
    command: Command, former_run: Run, name: str, value: Any
) -> None:
    for path in (former_run.best, former_run.recent()):
        checkpoint = torch.load(path, weights_only=True)
        loop = checkpoint["loops"]["fit_loop"]
        counters = loop["epoch_progress"]["current"]
        (counters if name == "processed" else loop["epoch_loop.batch_progress"])[name] = value
        torch.save(checkpoint, path)
    assert command("test", "0").status == 0
    result = command("resume", "0", "--trainer.max_epochs", "4")
    assert (result.status, "looks like a bug" in result.err) == (1, False)


def test_former_class_names_are_those_of_registered_classes() -> None:
    assert set(FORMER_NAMES.values()) <= COMPONENTS.keys()


def test_a_config_with_former_class_names_is_trained(
    command: Command, run_0: Run, tmp_path: Path
) -> None:
    classes = {
        name: [{"class_path": f"mnist_lightning.{path}"}]
        for name, path in (
            ("augment", "data.augment.Noise"),
            ("callbacks", "callbacks.averaging.ExponentialMovingAverage"),
        )
    }
    schedule = {"class_path": "mnist_lightning.schedules.Cosine"}
    config = {
        "model": {"network": {"class_path": "TinyCNN"}, "lr_scheduler": schedule},
        "data": {"dataset": "digits", "augment": classes["augment"]},
        "trainer": {"max_epochs": 1, "callbacks": classes["callbacks"]},
    }
    (tmp_path / "former.yaml").write_text(yaml.safe_dump(config))
    result = command("fit", "--config", "former.yaml", "--trainer.limit_train_batches", "2")
    assert result.status == 0, result.err
    saved = run_0.config.read_text()
    assert "mnist_lightning.training.lr_schedules.Cosine" in saved
    assert "mnist_lightning.training.callbacks.ema.ExponentialMovingAverage" in saved
    # The former names in a run's own files, as version 0.1.0 wrote them.
    for former_run, current in FORMER_NAMES.items():
        saved = saved.replace(current, former_run)
    run_0.config.write_text(saved)
    result = command("resume", "0")
    assert result.status == 0, result.err
    assert "is finished" in result.out
