"""Temperature scaling: calibrate the probabilities of a network."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]


def tempered(probabilities: Floats, temperature: float) -> NDArray[np.float64]:
    """Divide the logits behind `probabilities` (N, C) by a temperature."""
    # Logits are known up to a constant, which softmax does not see.
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities.astype(np.float64)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    tempered: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return tempered


def log_loss(probabilities: Floats, true: Labels) -> float:
    """Mean negative log of the probability (N, C) of the true labels (N,)."""
    chosen = probabilities[np.arange(len(true)), true].astype(np.float64)
    return float(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean())


def temperature(probabilities: Floats, true: Labels) -> float:
    """Find the temperature that makes the probabilities (N, C) of labels (N,) most likely.

    The one parameter of temperature scaling (Guo et al., 2017). It changes no prediction. Between
    0.05 and 20: where every image is read rightly, nothing bounds it.
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log: log_loss(tempered(probabilities, math.exp(log)), true),
        bounds=(math.log(0.05), math.log(20)),
        method="bounded",
    )
    return math.exp(float(found.x))
