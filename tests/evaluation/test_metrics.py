"""Metrics."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from mnist_lightning.evaluation.metrics import (
    calibration,
    closest_calls,
    confusion,
    per_class,
    surest_mistakes,
)
from mnist_lightning.evaluation.significance import mcnemar, spread, wilson
from mnist_lightning.networks.calibration import apply_temperature, fit_temperature, log_loss


def test_spread_is_mean_deviation_and_student_s_interval() -> None:
    # By hand: mean 3, variance 10 / 4, t(0.975, 4) = 2.776 from a table.
    result = spread([1, 2, 3, 4, 5])
    assert result.mean == 3
    assert result.std == pytest.approx(math.sqrt(2.5))
    half = 2.776 * math.sqrt(2.5 / 5)
    assert (result.low, result.high) == pytest.approx((3 - half, 3 + half), abs=1e-3)


def test_one_value_has_no_spread() -> None:
    result = spread([7.0])
    assert result.mean == 7
    assert all(map(math.isnan, result[1:]))


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_wilson_s_interval_equals_the_formula() -> None:
    # 8 of 10: 0.490 to 0.943 in textbooks; the formula by hand for MNIST's size.
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    z, n, p = 1.959964, 10_000, 0.9873
    center, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    by_hand = ((center - half) / (1 + z**2 / n), (center + half) / (1 + z**2 / n))
    assert wilson(9873, 10_000) == pytest.approx(by_hand, abs=1e-7)
    assert wilson(10, 10)[1] == 1


def test_confusion_has_true_labels_down() -> None:
    counts = confusion(np.array([0, 0, 1, 2]), np.array([0, 2, 1, 2]), classes=3)
    assert counts.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]


def test_confusion_precision_recall_and_f1_equal_torchmetrics() -> None:
    generator = np.random.default_rng(0)
    true = generator.integers(0, 10, 500)
    predicted = np.where(generator.random(500) < 0.7, true, generator.integers(0, 10, 500))
    counts = confusion(true, predicted)
    both = torch.tensor(predicted), torch.tensor(true)
    assert counts.tolist() == multiclass_confusion_matrix(*both, num_classes=10).tolist()
    classes = per_class(true, predicted)
    for name, function in (
        ("precision", multiclass_precision),
        ("recall", multiclass_recall),
        ("f1", multiclass_f1_score),
    ):
        assert classes[name] == pytest.approx(
            function(*both, num_classes=10, average="none").numpy()
        )
    assert classes["support"].tolist() == np.bincount(true).tolist()


def test_undefined_metrics_are_nan() -> None:
    classes = per_class(np.array([0, 0]), np.array([0, 1]), classes=3)
    assert classes["precision"].tolist()[:2] == [1, 0]
    assert classes["recall"].tolist()[0] == 0.5
    assert math.isnan(classes["precision"][2])
    assert math.isnan(classes["recall"][1])
    assert math.isnan(classes["f1"][2])


def test_the_most_confident_mistakes_come_first() -> None:
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    assert surest_mistakes(np.array([1, 1, 1, 0]), probabilities).tolist() == [1, 3, 0]
    assert closest_calls(np.array([0, 0, 1, 0]), probabilities).tolist() == [0, 2, 1]
    assert surest_mistakes(np.array([0, 0, 1, 1]), probabilities).tolist() == []


def test_the_calibration_error_equals_the_textbook() -> None:
    # Five bins. (0.4, 0.6]: confidence 0.55, 1 of 2 correct. (0.8, 1]: confidences 0.9, 1 and 1,
    # 2 of 3 correct. Mean distances 0.05 and 29/30 - 2/3 = 0.3.
    confidence = np.array([0.5, 0.6, 0.9, 1.0, 1.0])
    result = calibration(confidence, np.array([True, False, True, True, False]), bins=5)
    assert result.support.tolist() == [0, 0, 2, 0, 3]
    assert result.confidence[[2, 4]] == pytest.approx([0.55, 29 / 30])
    assert result.accuracy[[2, 4]] == pytest.approx([0.5, 2 / 3])
    assert math.isnan(result.accuracy[0])
    assert result.error == pytest.approx((2 * 0.05 + 3 * 0.3) / 5)


def test_below_a_confidence_of_1_it_equals_torchmetrics() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.full(10, 0.3), 2000)
    true = generator.integers(0, 10, 2000)
    correct = probabilities.argmax(axis=1) == true
    expected = multiclass_calibration_error(
        torch.tensor(probabilities), torch.tensor(true), num_classes=10, n_bins=15
    )
    assert calibration(probabilities.max(axis=1), correct).error == pytest.approx(float(expected))


def test_confidence_equal_to_accuracy_has_no_error() -> None:
    confidence = np.full(1000, 0.75)
    assert calibration(confidence, np.arange(1000) % 4 != 0).error == pytest.approx(0)


def test_a_known_temperature_is_found() -> None:
    generator = np.random.default_rng(0)
    logits = 3 * generator.standard_normal((20_000, 10))
    calibrated = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = np.array([generator.choice(10, p=p) for p in calibrated])
    overconfident = apply_temperature(calibrated, 1 / 2.5)
    assert fit_temperature(overconfident, true) == pytest.approx(2.5, rel=0.03)
    assert np.allclose(apply_temperature(overconfident, 2.5), calibrated)
    assert log_loss(calibrated, true) < log_loss(overconfident, true)
    assert (overconfident.argmax(axis=1) == calibrated.argmax(axis=1)).all()


def test_probabilities_of_zero_and_one_have_a_temperature() -> None:
    probabilities = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert np.array_equal(apply_temperature(probabilities, 3.0), probabilities)
    assert math.isfinite(log_loss(probabilities, np.array([0, 1, 1])))
    assert 0.05 <= fit_temperature(probabilities, np.array([0, 1, 0])) <= 20


def test_mcnemar_s_test_is_exact() -> None:
    # Ten against two: 2 * (1 + 12 + 66) / 2 ** 12.
    first = np.array([True] * 10 + [False] * 2 + [True] * 50 + [False] * 3)
    second = np.array([False] * 10 + [True] * 2 + [True] * 50 + [False] * 3)
    result = mcnemar(first, second)
    assert (result.only_first, result.only_second) == (10, 2)
    assert result.p == pytest.approx(158 / 4096)
    assert mcnemar(first, first).p == 1
