"""Metrics as pure functions of numbers and arrays."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]


def confusion(true: Labels, predicted: Labels, classes: int = 10) -> NDArray[np.int64]:
    """Count (C, C) how often each true label (row) was predicted as each label (column).

    Args:
        true: (N,).
        predicted: (N,).
        classes: C.
    """
    counts = np.bincount(true * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes)


def per_class(true: Labels, predicted: Labels, classes: int = 10) -> dict[str, NDArray[Any]]:
    """Compute `precision`, `recall`, `f1` and `support` (C,) of each class; NaN where undefined.

    Args:
        true: (N,).
        predicted: (N,).
        classes: C.
    """
    from sklearn.metrics import precision_recall_fscore_support

    values = precision_recall_fscore_support(
        true, predicted, labels=range(classes), zero_division=np.nan
    )
    return dict(zip(("precision", "recall", "f1", "support"), values, strict=True))


def surest_mistakes(true: Labels, probabilities: Floats) -> NDArray[np.int64]:
    """Find the misclassified samples, the most confident first.

    Args:
        true: (N,).
        probabilities: (N, C).

    Returns:
        (M,) indices.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != true)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]


def closest_calls(true: Labels, probabilities: Floats) -> NDArray[np.int64]:
    """Find the correct samples, the smallest margin to the second label first.

    Args:
        true: (N,).
        probabilities: (N, C).

    Returns:
        (M,) indices.
    """
    correct = np.flatnonzero(probabilities.argmax(axis=1) == true)
    top_two = np.sort(probabilities[correct], axis=1)[:, -2:]
    return correct[np.argsort(top_two[:, 1] - top_two[:, 0], kind="stable")]


BINS = 15  # of confidence, as in Guo et al.


class Calibration(NamedTuple):
    """Confidence and accuracy, in bins of confidence of equal width.

    Attributes:
        edges: (B + 1,) of the bins; a bin includes its upper edge, not its lower one.
        support: (B,) samples in each bin.
        confidence: (B,) the mean confidence; NaN in an empty bin.
        accuracy: (B,) the correct share; NaN in an empty bin.
        error: expected calibration error: the mean distance of the two, weighted by `support`.
    """

    edges: Floats
    support: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats
    error: float


def confidence_bins(confidence: Floats, bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin (N,) of each confidence (N,), from 0; the last one includes 1."""
    edges = np.linspace(0, 1, bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)


def calibration(confidence: Floats, correct: NDArray[np.bool_], bins: int = BINS) -> Calibration:
    """Compare confidence with accuracy (Guo et al., "On calibration of modern neural networks").

    Args:
        confidence: (N,) the probability of the predicted label, in (0, 1].
        correct: (N,) whether the predicted label is correct.
        bins: B. The last one includes a confidence of 1; torchmetrics 1.9 has a separate bin for
            it.
    """
    edges = np.linspace(0, 1, bins + 1)
    indices = confidence_bins(confidence, bins)
    count = np.bincount(indices, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(indices, confidence, minlength=bins) / count
        accuracy = np.bincount(indices, correct, minlength=bins) / count
    distance = np.abs(accuracy - mean)[count > 0]
    error = float(distance @ count[count > 0] / len(confidence))
    return Calibration(edges, count, mean, accuracy, error)
