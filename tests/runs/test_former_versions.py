"""Runs and exports of a former version (commit 8b39800) are read, tested and resumed.

`former/runs_0.1.0.zip` holds what that version wrote in its `lightning_logs`: a finished run with
three exports, and one that was interrupted within its second epoch. It was made by another user, as
far as signatures tell.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mnist_lightning import load
from mnist_lightning.runs.run_directory import Run
from tests.conftest import Command
from tests.preprocessing.test_ink_extraction import drawn

FORMER = Path(__file__).parent / "former" / "runs_0.1.0.zip"


@pytest.fixture
def former(run_0: Run) -> Run:
    """A finished run in `lightning_logs`, beside an interrupted one."""
    with zipfile.ZipFile(FORMER) as archive:
        archive.extractall(run_0.folder.parent)
    return run_0


def test_a_finished_run_is_tested_with_the_same_result(command: Command, former: Run) -> None:
    before = former.summary()["test/accuracy"]
    result = command("test", "0")
    assert result.status == 0, result.err
    assert f"{100 * before:.2f} %" in result.out
    assert command("validate", "0").status == 0


def test_a_finished_run_is_trained_further(command: Command, former: Run) -> None:
    result = command("resume", "0", "--trainer.max_epochs", "4")
    assert result.status == 0, result.err
    assert "damaged" not in result.out
    assert former.summary()["epochs"] == 4


def test_an_interrupted_run_is_finished(command: Command, former: Run) -> None:
    result = command("resume", "1")
    assert result.status == 0, result.err
    assert "damaged" not in result.out
    interrupted = Run(former.folder.with_name("version_1"))
    assert interrupted.summary()["state"] == "finished"


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt", "model.safetensors"])
def test_its_weights_read_the_same_digit(former: Run, name: str) -> None:
    path = next(former.folder.rglob(name))
    reading = load(path).predict(drawn())
    expected = load(former.best).predict(drawn())
    if name != "last.ckpt":
        assert np.allclose(reading.probabilities, expected.probabilities, atol=1e-6)
    assert len(reading.probabilities) == 10


def test_it_is_listed_reported_and_exported(command: Command, former: Run) -> None:
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
def test_odd_counters_are_damage(command: Command, former: Run, name: str, value: Any) -> None:
    for path in (former.best, former.recent()):
        checkpoint = torch.load(path, weights_only=True)
        loop = checkpoint["loops"]["fit_loop"]
        counters = loop["epoch_progress"]["current"]
        (counters if name == "processed" else loop["epoch_loop.batch_progress"])[name] = value
        torch.save(checkpoint, path)
    assert command("test", "0").status == 0
    result = command("resume", "0", "--trainer.max_epochs", "4")
    assert (result.status, "bug" in result.err) == (1, False)
