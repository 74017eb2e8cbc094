"""The predictions of a run are read as they were written."""

from pathlib import Path

import numpy as np
import pytest

from mnist_lightning.errors import UserError
from mnist_lightning.runs.predictions_csv import (
    PredictionsTable,
    read_labels,
    read_predictions,
    write_predictions,
)


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(10), size=5).astype(np.float32)
    table = PredictionsTable(np.arange(5), probabilities.argmax(1), probabilities)
    write_predictions(table, tmp_path / "predictions.csv")
    again = read_predictions(tmp_path / "predictions.csv")
    assert np.array_equal(again.true, table.true)
    assert np.array_equal(again.predicted, table.predicted)
    assert np.allclose(again.probabilities, probabilities, rtol=1e-5)


def test_a_table_without_rows_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("index,true,predicted,p0\n")
    with pytest.raises(UserError, match="not a table of predictions"):
        read_predictions(tmp_path / "predictions.csv")


@pytest.mark.parametrize("row", ["0,1,0,0,0", "0,1,0,0.5,0.4", "0,1,0,1,1", "0,1,0,-0.1,1.1"])
def test_probabilities_that_do_not_add_up_to_one_are_rejected(tmp_path: Path, row: str) -> None:
    (tmp_path / "predictions.csv").write_text(f"index,true,predicted,p0,p1\n{row}\n")
    with pytest.raises(UserError, match="not a table of predictions"):
        read_predictions(tmp_path / "predictions.csv")


def test_probabilities_of_a_network_that_diverged_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("index,true,predicted,p0,p1\n0,1,0,nan,nan\n")
    assert np.isnan(read_predictions(tmp_path / "predictions.csv").probabilities).all()


def test_labels_alone_equal_those_of_the_predictions(tmp_path: Path) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(10), size=500)
    table = PredictionsTable(np.arange(500) % 10, probabilities.argmax(1), probabilities)
    write_predictions(table, tmp_path / "predictions.csv")
    labels = read_labels(tmp_path / "predictions.csv")
    assert np.array_equal(labels.true, table.true)
    assert np.array_equal(labels.predicted, table.predicted)
    assert np.array_equal(labels.correct, table.correct)


@pytest.mark.parametrize(
    "rows", ["", "0,1", "0,1,x,1\n", "1,1,1,1\n", "0,1,-1,1\n", "0,1,1000,1\n", "0,1,1,1\n\n"]
)
def test_invalid_labels_are_rejected(tmp_path: Path, rows: str) -> None:
    (tmp_path / "predictions.csv").write_text(f"index,true,predicted,p0\n{rows}")
    with pytest.raises(UserError, match="not a table of predictions"):
        read_labels(tmp_path / "predictions.csv")
