"""Figures of merit."""

import math

import pytest

from mnist_lightning.evaluation.metrics import spread


def test_spread_is_mean_deviation_and_student_s_interval() -> None:
    # By hand: mean 3, variance 10 / 4, t(0.975, 4) = 2.776 from a table.
    of = spread([1, 2, 3, 4, 5])
    assert of.mean == 3
    assert of.std == pytest.approx(math.sqrt(2.5))
    half = 2.776 * math.sqrt(2.5 / 5)
    assert (of.low, of.high) == pytest.approx((3 - half, 3 + half), abs=1e-3)


def test_a_higher_confidence_is_a_wider_interval() -> None:
    assert spread([1, 2, 4], 0.99).high > spread([1, 2, 4], 0.95).high


def test_of_one_value_no_spread_is_known() -> None:
    of = spread([7.0])
    assert of.mean == 7
    assert all(map(math.isnan, of[1:]))


def test_no_values_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no values"):
        spread([])
