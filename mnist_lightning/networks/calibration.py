"""Temperature scaling: calibrate the probabilities of a network."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]


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


def temperature(probabilities: Floats, true: Labels) -> float:
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
