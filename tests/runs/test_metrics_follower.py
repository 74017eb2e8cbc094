"""The follower of `metrics.csv` reads what a run writes, each row once."""

import math
import os
import random
from itertools import pairwise
from pathlib import Path

import pytest

from mnist_lightning.errors import UserError
from mnist_lightning.files import read_bounded
from mnist_lightning.runs import metrics_follower
from mnist_lightning.runs.metrics_csv import (
    MAX_METRICS_BYTES,
    MetricsFile,
    read_history,
    truncate_metrics,
)
from mnist_lightning.runs.metrics_follower import EpochMeans, MetricsFollower, StepLoss


def write_run(file: MetricsFile, path: Path, followers: list[MetricsFollower]) -> None:
    """Write the metrics of epochs, with flushes and readings at random moments."""
    generator = random.Random(1)
    step = 0
    for epoch in range(1, 41):
        for _ in range(generator.randint(1, 4)):
            step += generator.randint(1, 3)
            file.add({"train/step_loss": generator.random(), "learning_rate": 0.1}, step)
            flush_and_read(file, followers, generator)
        file.add({"epoch": epoch, "train/loss": generator.random(), "train/accuracy": 0.5}, step)
        flush_and_read(file, followers, generator)
        if epoch % 3:
            file.add({"val/loss": generator.random(), "val/accuracy": 0.75}, step)
        flush_and_read(file, followers, generator)
    file.flush()


def flush_and_read(
    file: MetricsFile, followers: list[MetricsFollower], generator: random.Random
) -> None:
    if generator.random() < 0.5:
        file.flush()
    for follower in followers:
        if generator.random() < 0.5:
            follower.update()


def test_it_reads_the_same_as_the_reader_of_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    followers = [MetricsFollower(path) for _ in range(3)]
    write_run(MetricsFile(path, "mnist"), path, followers)
    history = read_history(path)
    for follower in (*followers, MetricsFollower(path)):
        follower.update()
        assert [means.epoch for means in follower.epochs] == list(range(1, 41))
        for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
            field = name.replace("/", "_")
            values = [getattr(means, field) for means in follower.epochs]
            expected = [None if math.isnan(value) else value for value in history[name]]
            assert values == expected
        rows = [row.split(",") for row in path.read_text().splitlines()[1:]]
        losses = [StepLoss(int(row[0]), float(row[2])) for row in rows if row[2]]
        assert follower.step_losses == losses
        assert follower.step == int(rows[-1][0])


def test_only_new_rows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path, "mnist")
    for step in range(1, 1_001):
        file.add({"train/step_loss": 0.5}, step)
    file.flush()
    follower = MetricsFollower(path)
    follower.update()
    parsed: list[bytes] = []
    original = MetricsFollower._values

    def counting(self: MetricsFollower, line: bytes) -> dict[str, str]:
        parsed.append(line)
        return original(self, line)

    monkeypatch.setattr(MetricsFollower, "_values", counting)
    file.add({"train/step_loss": 0.25}, 1_001)
    file.flush()
    follower.update()
    assert len(parsed) == 2  # the last row, which could have changed, and the new one
    assert follower.step_losses[-1] == (1_001, 0.25)
    assert len(follower.step_losses) == 1_001


def test_a_resumed_run_is_read_from_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path, "mnist")
    for epoch in (1, 2, 3):
        file.add({"epoch": epoch, "train/loss": 1 / epoch}, 10 * epoch)
    file.flush()
    follower = MetricsFollower(path)
    follower.update()
    assert [means.epoch for means in follower.epochs] == [1, 2, 3]
    truncate_metrics(path, 10)
    follower.update()
    assert follower.epochs == [EpochMeans(1, 10, 1.0, None, None, None)]
    path.unlink()
    follower.update()
    assert (follower.epochs, follower.step_losses, follower.step) == ([], [], 0)


def test_an_incomplete_last_line_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    follower = MetricsFollower(path)
    path.write_text("step,dataset,train/step_lo")
    follower.update()
    path.write_text("step,dataset,train/step_loss\n1,mnist,0.5\n2,mnist,0.2")
    follower.update()
    assert follower.step_losses == [(1, 0.5)]
    path.write_text("step,dataset,train/step_loss\n1,mnist,0.5\n2,mnist,0.25\n")
    follower.update()
    assert follower.step_losses == [(1, 0.5), (2, 0.25)]


def test_invalid_values_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    rows = [
        "step,dataset,epoch,train/loss,val/loss,train/step_loss",
        "1,mnist,,,,nan", "2,mnist,,,,inf", "x,mnist,,,,1", "-3,mnist,,,,1", "²,mnist,,,,1",
        "9" * 5_000 + ",mnist,,,,1", "3,mnist,1,<b>,1e999,0.5", "4,mnist", "2,mnist,2,1,1,1",
        "5,mnist,1,0.25,,", "6,mnist,2.5,0.25,,", '7,"mn,ist",3,0.25,,', "8,\xff,3,0.125,1_0,x",
    ]  # fmt: skip
    path.write_text("\n".join(rows) + "\n", encoding="latin-1")
    follower = MetricsFollower(path)
    follower.update()
    assert follower.step_losses == [(3, 0.5)]
    assert follower.epochs == [
        EpochMeans(1, 3, None, None, None, None),
        EpochMeans(3, 8, 0.125, None, None, None),
    ]


def test_files_beyond_the_limits_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,dataset" + ",x" * 1_000 + "\n1\n")
    follower = MetricsFollower(path)
    for _ in range(2):
        with pytest.raises(UserError, match="has more than 1,000 columns"):
            follower.update()
    monkeypatch.setattr(metrics_follower, "MAX_ROWS", 10)
    path.write_text("step,dataset\n" + "1,mnist\n" * 11)
    with pytest.raises(UserError, match="has more than 10 rows"):
        MetricsFollower(path).update()
    with path.open("wb") as file:
        file.truncate(MAX_METRICS_BYTES + 1)
    with pytest.raises(UserError, match="is too large to show"):
        MetricsFollower(path).update()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="is not a regular file"):
        MetricsFollower(path).update()


def test_a_directory_in_place_of_a_file_leaves_no_descriptor_open(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.mkdir()
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(UserError, match=r"metrics\.csv: Is a directory"):
            MetricsFollower(path).update()
        with pytest.raises(IsADirectoryError):
            read_bounded(path, 100)
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_long_run_keeps_few_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    lines = ["step,dataset,epoch,train/step_loss"]
    lines += [f"{step},mnist,{step},{step}" for step in range(1, 12_346)]
    path.write_text("\n".join(lines) + "\n")
    follower = MetricsFollower(path)
    follower.update()
    epochs = [means.epoch for means in follower.epochs]
    assert epochs[:999] == list(range(1, 1_000))
    assert epochs[999:1_002] == [1_000, 1_010, 1_020]
    assert epochs[-2:] == [12_300, 12_345]
    steps = [step for step, _ in follower.step_losses]
    assert 1_000 <= len(steps) <= metrics_follower.MAX_STEP_LOSSES
    assert len({b - a for a, b in pairwise(steps)}) == 1
    assert all(loss == step for step, loss in follower.step_losses)
