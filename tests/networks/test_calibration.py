"""Calibrated confidence, and the rule for images that are not digits."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mnist_lightning.networks.calibration import MAX_REJECTED, Calibration, fit_calibration

Floats = NDArray[np.float64]


def draw_probabilities(sharpness: float, count: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """Return probabilities (N, 10) that are right as often as they say, and labels (N,)."""
    generator = np.random.default_rng(seed)
    logits = sharpness * generator.normal(size=(count, 10))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    chosen = (probabilities.cumsum(axis=1) > generator.uniform(size=(count, 1))).argmax(axis=1)
    return probabilities, chosen


def test_digits_keep_their_confidence_and_other_images_lose_it() -> None:
    digits, labels = draw_probabilities(8, 5000, seed=0)
    others, _ = draw_probabilities(0.5, 300, seed=1)
    fitted = fit_calibration(digits, labels, others)
    assert fitted.temperature == pytest.approx(1, abs=0.05)
    assert fitted.digit_slope > 0
    after = fitted.apply(digits)
    assert after.sum(axis=1) == pytest.approx(1)
    assert (after.argmax(axis=1) == digits.argmax(axis=1)).all()  # no prediction changes
    correct = after.argmax(axis=1) == labels
    assert after.max(axis=1).mean() == pytest.approx(correct.mean(), abs=0.05)
    assert fitted.apply(others).max(axis=1).mean() < others.max(axis=1).mean()
    assert fitted.rejects(digits).mean() <= MAX_REJECTED
    assert fitted.rejects(others).mean() > 0.1


def test_surer_non_digits_than_digits_leave_only_the_temperature() -> None:
    digits, labels = draw_probabilities(0.5, 2000, seed=0)
    others, _ = draw_probabilities(8, 300, seed=1)
    fitted = fit_calibration(digits, labels, others)
    assert fitted == Calibration(fitted.temperature)
    assert not fitted.rejects(others).any()


def test_without_a_calibration_nothing_changes() -> None:
    digits, _ = draw_probabilities(3, 100, seed=0)
    assert Calibration().apply(digits) == pytest.approx(digits, abs=1e-6)
    assert not Calibration().rejects(digits).any()


def test_certain_and_impossible_probabilities_stay_finite() -> None:
    certain = np.eye(10)[[3, 4]]
    others = np.full((50, 10), 0.1)
    fitted = fit_calibration(np.eye(10)[np.arange(200) % 10], np.arange(200) % 10, others)
    assert np.isfinite(fitted.apply(certain)).all()
    assert np.isfinite(fitted.apply(others)).all()
