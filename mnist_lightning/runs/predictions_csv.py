"""Write and read `predictions.csv`."""

import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.errors import UserError
from mnist_lightning.files import read_bounded, write_atomically

MAX_PREDICTIONS_BYTES = 50_000_000  # the 60,000 images of QMNIST need 8 MB
MAX_ROWS = 500_000
MAX_CLASSES = 200  # a confusion matrix has MAX_CLASSES squared cells

_LABELS = re.compile(rb"([0-9]{1,6}),([0-9]{1,3}),([0-9]{1,3}),")


class LabelsTable(NamedTuple):
    """The true and the predicted labels of N images, (N,) each."""

    true: NDArray[np.int64]
    predicted: NDArray[np.int64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each prediction is correct: (N,)."""
        return np.asarray(self.true == self.predicted)


class PredictionsTable(NamedTuple):
    """The predictions of a network for N images.

    Attributes:
        true: (N,) labels.
        predicted: (N,) labels.
        probabilities: (N, C).
    """

    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.floating[Any]]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each prediction is correct: (N,)."""
        return LabelsTable(self.true, self.predicted).correct


def write_predictions(table: PredictionsTable, path: Path) -> None:
    """Write one row per image: index, true, predicted, and the probability of each class."""
    content, classes = io.BytesIO(), range(table.probabilities.shape[1])
    rows = np.column_stack([np.arange(len(table.true)), *table])
    header = ["index", "true", "predicted", *(f"p{c}" for c in classes)]
    formats = [*["%d"] * 3, *["%.6g"] * len(classes)]
    np.savetxt(content, rows, formats, delimiter=",", header=",".join(header), comments="")
    write_atomically(content.getvalue(), path)


def read_labels(path: Path) -> LabelsTable:
    """Read only the labels of a `predictions.csv`, much faster than `read_predictions`.

    Raises:
        UserError: it is damaged.
    """
    _, *lines = read_bounded(path, MAX_PREDICTIONS_BYTES).splitlines()
    rows = [_LABELS.match(line) for line in lines[:MAX_ROWS]]
    numbers = [[int(text) for text in row.groups()] for row in rows if row is not None]
    labels = np.array(numbers, np.int64).reshape(-1, 3)
    if not lines or len(labels) < len(lines) or not np.array_equal(labels[:, 0], range(len(lines))):
        raise UserError(f"{path} is damaged or not a table of predictions; run test")
    return LabelsTable(labels[:, 1], labels[:, 2])


def read_predictions(path: Path) -> PredictionsTable:
    """Read a `predictions.csv`; the probabilities of a network that diverged are NaN.

    Raises:
        UserError: it is damaged.
    """
    content = read_bounded(path, MAX_PREDICTIONS_BYTES)
    try:
        # The csv module's lists of strings would need ten times the memory of numbers.
        _, _, body = content.partition(b"\n")
        columns = body.partition(b"\n")[0].count(b",")
        if not body.strip() or columns > MAX_CLASSES + 2:  # a long line needs much memory
            raise ValueError
        rows = np.loadtxt(io.BytesIO(body), delimiter=",", ndmin=2, comments=None)
        labels, probabilities = rows[:, 1:3], rows[:, 3:]
        classes = probabilities.shape[1]
        valid = (labels == np.floor(labels)) & (labels >= 0) & (labels < classes)
        numbered = np.array_equal(rows[:, 0], np.arange(len(rows)))
        shares = ((probabilities >= 0) & (probabilities <= 1)) | np.isnan(probabilities)
        totals = probabilities.sum(axis=1)
        complete = np.isclose(totals, 1, atol=0.01) | np.isnan(totals)
        if not (valid.all() and numbered and shares.all() and complete.all()):
            raise ValueError
        true, predicted = labels.astype(np.int64).T
    except (ValueError, IndexError):
        raise UserError(f"{path} is damaged or not a table of predictions; run test") from None
    return PredictionsTable(true, predicted, probabilities)
