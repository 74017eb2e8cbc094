"""Metrics as pure functions of numbers and arrays."""

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]


class Spread(NamedTuple):
    """Statistics of one value over several runs, with a confidence interval of the mean."""

    mean: float
    std: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Compute the mean, the sample standard deviation, and Student's 95 % interval of the mean.

    For a single value, deviation and interval are NaN.

    Raises:
        ValueError: there are no values, or one is NaN.
    """
    from scipy.stats import t  # takes 1.5 s to import

    mean = statistics.fmean(values) if values else math.nan
    if math.isnan(mean):
        raise ValueError("no values")
    if len(values) == 1:
        return Spread(mean, math.nan, math.nan, math.nan)
    std = statistics.stdev(values)
    half = float(t.ppf(0.975, len(values) - 1)) * std / math.sqrt(len(values))
    return Spread(mean, std, mean - half, mean + half)


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Compute Wilson's 95 % interval of a share, `correct` of `total` samples (Wilson, 1927).

    Raises:
        ValueError: `total` is 0, or `correct` is larger.
    """
    from scipy.stats import binomtest

    low, high = binomtest(correct, total).proportion_ci(method="wilson")
    return float(low), float(high)


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


def calibration(confidence: Floats, correct: NDArray[np.bool_], bins: int = 15) -> Calibration:
    """Compare confidence with accuracy (Guo et al., "On calibration of modern neural networks").

    Args:
        confidence: (N,) the probability of the predicted label, in (0, 1].
        correct: (N,) whether the predicted label is correct.
        bins: B. The last one includes a confidence of 1; torchmetrics 1.9 has a separate bin for
            it.
    """
    edges = np.linspace(0, 1, bins + 1)
    indices = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(indices, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(indices, confidence, minlength=bins) / count
        accuracy = np.bincount(indices, correct, minlength=bins) / count
    distance = np.abs(accuracy - mean)[count > 0]
    error = float(distance @ count[count > 0] / len(confidence))
    return Calibration(edges, count, mean, accuracy, error)


class McNemar(NamedTuple):
    """A test whether two classifiers of the same images differ significantly.

    Attributes:
        only_first: the number of images on which only the first is correct.
        only_second: the number on which only the second is.
        p: the probability of this difference or a larger one, if both were equally good.
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Apply McNemar's exact test, two-sided (McNemar, 1947).

    Args:
        first: (N,) whether the first classifier is correct.
        second: (N,) whether the second one is, for the same images.
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    different = only_first + only_second
    p = float(binomtest(only_first, different).pvalue) if different else 1.0
    return McNemar(only_first, only_second, p)
