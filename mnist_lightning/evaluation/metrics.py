"""Figures of merit, as pure functions of numbers and arrays."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


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
