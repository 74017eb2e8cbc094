"""Calibration: temperature scaling, and a rule for images that are not digits."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]


NON_DIGIT_WEIGHT = 0.3  # of all non-digits together, relative to all digits
MIN_OTHERS = 1e-30  # probability of all labels but the first
MAX_SLOPE, MAX_OFFSET = 100.0, 1_000.0
MAX_REJECTED = 0.003  # share of the validation images that may be rejected


class Calibration(NamedTuple):
    """Turns the probabilities of a network into calibrated ones.

    The probability that an image is a digit is `sigmoid(digit_slope * s + digit_offset)`, where s
    is the log-odds of the highest probability. A calibrated probability is a mixture of the
    temperature-scaled one (for a digit) and of 1 / C (for another image).

    Attributes:
        temperature: divisor of the logits.
        digit_slope: see above.
        digit_offset: see above.
        min_digit: an image with a lower probability to be a digit is probably none.
    """

    temperature: float = 1.0
    digit_slope: float = 0.0
    digit_offset: float = 20.0  # with a slope of 0: every image is a digit
    min_digit: float = 0.0

    def digit_probability(self, probabilities: Floats) -> NDArray[np.float64]:
        """Return the probability (N,) that an image is a digit; probabilities (N, C)."""
        return _sigmoid(self.digit_slope * log_odds(probabilities) + self.digit_offset)

    def apply(self, probabilities: Floats) -> NDArray[np.float64]:
        """Return calibrated probabilities (N, C)."""
        digit = self.digit_probability(probabilities)[:, None]
        scaled = apply_temperature(probabilities, self.temperature)
        return digit * scaled + (1 - digit) / probabilities.shape[1]

    def rejects(self, probabilities: Floats) -> NDArray[np.bool_]:
        """Return whether images are probably no digits, (N,)."""
        return self.digit_probability(probabilities) < self.min_digit


def log_odds(probabilities: Floats) -> NDArray[np.float64]:
    """Return the log-odds (N,) of the highest of the probabilities (N, C)."""
    ordered = np.sort(probabilities.astype(np.float64), axis=1)
    # Probabilities are stored with 32 bits, which do not tell larger odds from infinite ones.
    others = np.maximum(ordered[:, :-1].sum(axis=1), MIN_OTHERS)
    return np.log(ordered[:, -1]) - np.log(others)


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # NaN of a diverged network stays NaN
        return np.asarray(np.exp(-np.logaddexp(0, -values)))


def fit_calibration(probabilities: Floats, true: Labels, non_digits: Floats) -> Calibration:
    """Fit a calibration.

    Args:
        probabilities: (N, C), of the network for validation images.
        true: their labels (N,).
        non_digits: probabilities (M, C) for images that are not digits.
    """
    from scipy.optimize import minimize

    digits, others = log_odds(probabilities), log_odds(non_digits)

    def loss(parameters: NDArray[np.float64]) -> float:
        slope, offset = parameters
        of_digits = np.logaddexp(0, -slope * digits - offset).mean()
        of_others = np.logaddexp(0, slope * others + offset).mean()
        return float(of_digits + NON_DIGIT_WEIGHT * of_others)

    slope, offset = map(float, minimize(loss, (1.0, 0.0), method="BFGS").x)
    temperature = fit_temperature(probabilities, true)
    # Without a positive slope, the network is more certain about other images than about digits. A
    # steep one separates the images by tiny differences.
    if not (0 < slope <= MAX_SLOPE and abs(offset) <= MAX_OFFSET):
        return Calibration(temperature)
    fitted = Calibration(temperature, slope, offset)
    least = float(np.quantile(fitted.digit_probability(probabilities), MAX_REJECTED))
    return fitted._replace(min_digit=min(0.5, least))


def apply_temperature(probabilities: Floats, temperature: float) -> NDArray[np.float64]:
    """Divide the logits behind `probabilities` (N, C) by a temperature."""
    # The logarithms equal the logits up to a constant, which does not change the softmax.
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities.astype(np.float64)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def log_loss(probabilities: Floats, true: Labels) -> float:
    """Return the mean negative log-likelihood of the true labels (N,); probabilities (N, C)."""
    chosen = probabilities[np.arange(len(true)), true].astype(np.float64)
    return float(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean())


def fit_temperature(probabilities: Floats, true: Labels) -> float:
    """Return the temperature that minimizes the `log_loss` of probabilities (N, C), labels (N,).

    It is the only parameter of temperature scaling (Guo et al., 2017). It changes no prediction.
    The range is 0.05 to 20: the optimum is unbounded if every prediction is correct.
    """
    from scipy.optimize import minimize_scalar

    optimum = minimize_scalar(
        lambda log: log_loss(apply_temperature(probabilities, math.exp(log)), true),
        bounds=(math.log(0.05), math.log(20)),
        method="bounded",
    )
    return math.exp(float(optimum.x))
