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
    """What several runs of one experiment say of its mean."""

    mean: float
    std: float
    low: float
    high: float


def spread(values: Sequence[float], confidence: float = 0.95) -> Spread:
    """Mean, sample standard deviation, and Student's interval of the mean.

    Of a single value nothing is known but itself: its deviation and its interval are NaN.

    Raises:
        ValueError: there are no values.
    """
    from scipy.stats import t  # a second and a half to import

    mean = statistics.fmean(values) if values else math.nan
    if math.isnan(mean):
        raise ValueError("no values")
    if len(values) == 1:
        return Spread(mean, math.nan, math.nan, math.nan)
    std = statistics.stdev(values)
    half = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * std / math.sqrt(len(values))
    return Spread(mean, std, mean - half, mean + half)


class Interval(NamedTuple):
    """Where a share lies."""

    low: float
    high: float


def wilson(correct: int, total: int, confidence: float = 0.95) -> Interval:
    """Wilson's interval of the share of which `correct` of `total` are a sample (Wilson, 1927).

    Raises:
        ValueError: there is no sample, or more of it correct than there is.
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def confusion(true: Labels, predicted: Labels, classes: int = 10) -> NDArray[np.int64]:
    """Count (C, C) how often each true label (row) was given each label (column).

    Args:
        true: (N,).
        predicted: (N,).
        classes: C.
    """
    counts = np.bincount(true * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes)


class PerClass(NamedTuple):
    """Figures (C,) of each class; NaN where they are not defined.

    Attributes:
        precision: share of those given the label that have it.
        recall: share of those that have the label that were given it.
        f1: harmonic mean of the two.
        support: how many have the label.
    """

    precision: Floats
    recall: Floats
    f1: Floats
    support: NDArray[np.int64]


def per_class(counts: NDArray[np.int64]) -> PerClass:
    """Read precision, recall and F1 of each class off a confusion matrix (C, C)."""
    right, given, support = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return PerClass(right / given, right / support, 2 * right / (given + support), support)


def surest_mistakes(true: Labels, probabilities: Floats) -> NDArray[np.int64]:
    """Find the samples that were given a wrong label, the most confident first.

    Args:
        true: (N,).
        probabilities: (N, C).

    Returns:
        (M,) their indices.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != true)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]


def closest_calls(true: Labels, probabilities: Floats) -> NDArray[np.int64]:
    """Find the samples that were given their label, the narrowest lead over the next one first.

    Args:
        true: (N,).
        probabilities: (N, C).

    Returns:
        (M,) their indices.
    """
    right = np.flatnonzero(probabilities.argmax(axis=1) == true)
    two = np.sort(probabilities[right], axis=1)[:, -2:]
    return right[np.argsort(two[:, 1] - two[:, 0], kind="stable")]


class Calibration(NamedTuple):
    """How far confidence can be trusted, in bins of confidence of equal width.

    Attributes:
        edges: (B + 1,) of the bins; a bin holds its upper edge, not its lower one.
        support: (B,) samples in each bin.
        confidence: (B,) their mean confidence; NaN in an empty bin.
        accuracy: (B,) the share of them that is right; NaN in an empty bin.
        error: expected calibration error: the mean distance of the two, weighed by `support`.
    """

    edges: Floats
    support: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats
    error: float


def calibration(confidence: Floats, right: NDArray[np.bool_], bins: int = 15) -> Calibration:
    """Compare confidence with accuracy (Guo et al., "On calibration of modern neural networks").

    Args:
        confidence: (N,) the probability of the label that was given, in (0, 1].
        right: (N,) whether that label is the true one.
        bins: B. A confidence of 1 belongs to the last one, where torchmetrics 1.9 makes a bin of
            its own of it.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, confidence, minlength=bins) / count
        accuracy = np.bincount(place, right, minlength=bins) / count
    distance = np.abs(accuracy - mean)[count > 0]
    error = float(distance @ count[count > 0] / len(confidence))
    return Calibration(edges, count, mean, accuracy, error)


class McNemar(NamedTuple):
    """Whether two readers of the same images differ by more than chance.

    Attributes:
        only_first: how many only the first read rightly.
        only_second: how many only the second did.
        p: the probability of so uneven a split, or a more uneven one, if both were equally good.
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """McNemar's exact test, two-sided (McNemar, 1947).

    Args:
        first: (N,) whether the first reader was right.
        second: (N,) whether the second one was, of the same images.
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differ = only_first + only_second
    p = float(binomtest(only_first, differ).pvalue) if differ else 1.0
    return McNemar(only_first, only_second, p)
