"""The tables of a run are read as they were written."""

import math
from pathlib import Path

import pytest

from mnist_lightning.files import write_atomically
from mnist_lightning.runs import metrics_csv
from mnist_lightning.runs.metrics_csv import MetricsFile, read_history


def test_history_has_a_value_per_epoch_and_nan_for_missing_values(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.csv", "mnist")
    file.add({"train/step_loss": 2.0}, 5)
    file.add({"epoch": 1, "train/loss": 0.5, "train/accuracy": 0.75}, 10)
    file.add({"epoch": 2, "train/loss": 0.25, "train/accuracy": 0.875, "val/loss": 0.5}, 20)
    file.flush()
    history = read_history(tmp_path / "metrics.csv")
    assert history["train/loss"] == [0.5, 0.25]
    assert history["train/accuracy"] == [0.75, 0.875]
    assert math.isnan(history["val/loss"][0])
    assert history["val/loss"][1] == 0.5
    assert all(map(math.isnan, history["val/accuracy"]))


def test_a_run_without_metrics_has_no_history(tmp_path: Path) -> None:
    assert set(map(len, read_history(tmp_path / "metrics.csv").values())) == {0}


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupted_and_repeated_flush_writes_each_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path, "mnist")
    for step in (1, 2):
        file.add({"train/loss": 0.5}, step)
        file.flush()
    file.add({"train/loss": 0.25}, 3)
    file.add({"test/loss": 0.125}, 4)

    def interrupted_write(content: bytes, path: Path) -> None:
        if after:
            write_atomically(content, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(metrics_csv, "write_atomically", interrupted_write)
        with pytest.raises(KeyboardInterrupt):
            file.flush()
    file.flush()
    assert path.read_text().splitlines() == [
        "step,dataset,train/loss,test/loss",
        "1,mnist,0.5,",
        "2,mnist,0.5,",
        "3,mnist,0.25,",
        "4,mnist,,0.125",
    ]
