"""Judge calibration: compare a network with simulated ones that are perfectly calibrated."""

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.evaluation.findings import SIGNIFICANT, Finding, Kind
from mnist_lightning.evaluation.metrics import BINS, Floats, confidence_bins
from mnist_lightning.text import percent, plural

SIMULATIONS = 1000
MAX_BLUR = 0.05  # with a higher error by chance, a test shows almost nothing


def judge_calibration(
    confidence: Floats, correct: NDArray[np.bool_], temperature: float | None = None
) -> Finding:
    """Judge whether the confidence equals the accuracy, as far as these images can tell.

    A perfectly calibrated network predicts each image correctly with a probability equal to its
    confidence. Drawing such results many times shows which calibration errors occur by chance. The
    error of the network is significant if 95 % of them are lower. It is overconfident or
    underconfident if its mean confidence differs from its accuracy more than in 95 % of them.

    Args:
        confidence: (N,) the probability of each predicted label.
        correct: (N,) whether each prediction is correct.
        temperature: by which the confidence was calibrated; None: it was not.
    """
    gaps = _bin_gaps(confidence, correct)
    simulated = _simulate(confidence)
    errors, differences = np.abs(simulated).sum(axis=1), np.abs(simulated.sum(axis=1))
    error, limit = float(np.abs(gaps).sum()), float(np.quantile(errors, 1 - SIGNIFICANT))
    mean, accuracy = float(confidence.mean()), float(correct.mean())
    if error > limit:
        kind, name = (
            Kind.MISCALIBRATED,
            "Miscalibrated, too high in some bins and too low in others",
        )
        if abs(gaps.sum()) > np.quantile(differences, 1 - SIGNIFICANT):
            over = mean > accuracy
            kind = Kind.OVERCONFIDENT if over else Kind.UNDERCONFIDENT
            name = kind.capitalize()
        text = (
            f"{name}: the mean confidence is {percent(mean)}, the accuracy {percent(accuracy)}. "
            f"The calibration error of {percent(error)} is more than chance: with perfect "
            f"calibration, it is below {percent(limit)} in 95 % of tests."
        )
    elif limit > MAX_BLUR:
        kind = Kind.TOO_FEW_IMAGES
        text = (
            f"Too few images to tell: with {plural(len(correct), 'image')}, the calibration error "
            f"may be {percent(limit)} by chance alone; it is {percent(error)}."
        )
    else:
        kind = Kind.CALIBRATED
        text = (
            f"Consistent with perfect calibration: the calibration error of {percent(error)} may "
            f"be chance, which causes more than {percent(limit)} in 5 % of tests."
        )
    known = "no temperature" if temperature is None else f"the temperature {temperature:.3f}"
    return Finding(kind, f"{text} The run has {known}.")


def _bin_gaps(confidence: Floats, correct: NDArray[np.bool_]) -> Floats:
    """Return how far the sum of the confidence is above the number of correct images.

    (B,), one for each bin, as shares of all images. The sum of the absolute values is the
    calibration error.
    """
    excess = confidence - correct
    return np.bincount(confidence_bins(confidence), excess, minlength=BINS) / len(confidence)


def _simulate(confidence: Floats) -> Floats:
    """Return the gaps (S, B) of simulated networks that are perfectly calibrated."""
    generator = np.random.default_rng(0)
    bins, count = confidence_bins(confidence), len(confidence)
    expected = np.bincount(bins, confidence, minlength=BINS)
    hits = [
        np.bincount(bins[generator.random(count) < confidence], minlength=BINS)
        for _ in range(SIMULATIONS)
    ]
    return (expected - np.array(hits)) / count
