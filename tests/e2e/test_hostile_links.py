"""Links in a run or a data folder: no command writes through them."""

import os
from pathlib import Path
from typing import Any

import pytest

from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.runs.run_directory import Run
from tests.conftest import Command
from tests.e2e.conftest import FIT, LONGER


def test_metrics_are_not_written_through_a_link(
    command: Command, trained: Run, tmp_path: Path
) -> None:
    precious = tmp_path / "precious.csv"
    metrics = trained.folder / "metrics.csv"
    metrics.rename(precious)
    before = precious.read_bytes()
    metrics.symlink_to(precious)
    assert command(*LONGER).status == 0
    assert precious.read_bytes() == before
    assert not metrics.is_symlink()


def test_test_does_not_write_through_a_link(command: Command, trained: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    trained.checkpoints.rename(other)
    trained.checkpoints.symlink_to(other)
    before = sorted(path.name for path in other.iterdir())
    result = command("test", "0", "--trainer.limit_test_batches", "1")
    assert result.status == 1
    assert "checkpoints is a symbolic link, which may lead out of" in result.err
    assert sorted(path.name for path in other.iterdir()) == before


def test_an_ensemble_is_not_exported_through_a_link(
    command: Command, trained: Run, tmp_path: Path
) -> None:
    assert command(*FIT, "--seed_everything", "2").status == 0
    outside = tmp_path / "outside"
    outside.mkdir()
    (trained.folder.parent / "ensemble_0_1").symlink_to(outside)
    result = command("export", "0,1", "--format", "pt2")
    assert result.status == 1
    assert "ensemble_0_1 is a link; use the path of its target" in result.err
    assert not list(outside.iterdir())


def test_a_hard_link_is_not_written_through(command: Command, trained: Run, tmp_path: Path) -> None:
    for name in ("projector_config.pbtxt", "metrics.csv"):
        precious = tmp_path / f"precious_{name}"
        linked = trained.folder / name
        content = linked.read_bytes() if linked.exists() else b"precious" * 1000
        linked.unlink(missing_ok=True)
        precious.write_bytes(content)
        linked.hardlink_to(precious)
    result = command(*LONGER, "--dashboards", "full")
    assert result.status == 0, result.err
    assert (tmp_path / "precious_projector_config.pbtxt").read_bytes() == b"precious" * 1000
    assert "\n4," not in (tmp_path / "precious_metrics.csv").read_text()
    assert "\n4," in (trained.folder / "metrics.csv").read_text()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_data_is_not_written_through_a_link(command: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / SOURCES[name].folder).symlink_to(tmp_path / "victim")
    result = command("data", name, "--fetch")
    assert result.status == 1
    assert "is a symbolic link, which may lead out of data" in result.err
    assert not list((tmp_path / "victim").iterdir())


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_projector_config_that_is_not_a_file_is_reported(
    command: Command, trained: Run, make: Any
) -> None:
    listed = trained.folder / "projector_config.pbtxt"
    listed.unlink(missing_ok=True)
    make(listed)
    result = command(*LONGER, "--dashboards", "full")
    assert (result.status, "pbtxt is not a regular file; remove it" in result.err) == (1, True)
