"""Confidence intervals, and McNemar's test of two classifiers."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


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


def prediction_interval(
    values: Sequence[float], count: int = 1, level: float = 0.95
) -> tuple[float, float]:
    """Compute the interval that contains the mean of `count` new values from one distribution.

    The values are treated as normally distributed (Hahn, 1969).

    Args:
        values: the known values.
        count: the number of new values.
        level: the probability that the interval contains their mean.

    Raises:
        ValueError: there are fewer than two values.
    """
    from scipy.stats import t

    if len(values) < 2:
        raise ValueError("a single value has no spread")
    std = statistics.stdev(values)
    quantile = float(t.ppf((1 + level) / 2, len(values) - 1))
    half = quantile * std * math.sqrt(1 / len(values) + 1 / count)
    mean = statistics.fmean(values)
    return mean - half, mean + half


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Compute Wilson's 95 % interval of a share, `correct` of `total` samples (Wilson, 1927).

    Raises:
        ValueError: `total` is 0, or `correct` is larger.
    """
    from scipy.stats import binomtest

    low, high = binomtest(correct, total).proportion_ci(method="wilson")
    return float(low), float(high)


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
