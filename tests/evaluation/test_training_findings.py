"""The judgment about a training."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_lightning.evaluation.training_findings import (
    MIN_EPOCHS,
    Training,
    TrainingFinding,
    judge_training,
)

NAN, INF = math.nan, math.inf


def judge(
    train: list[float], val: list[float], accuracy: float | list[float] = 0.99
) -> TrainingFinding:
    """Judge a training by its losses, with an accuracy of all epochs or of each."""
    accuracies = accuracy if isinstance(accuracy, list) else [accuracy] * len(train)
    known = [NAN if math.isnan(loss) else of for loss, of in zip(val, accuracies, strict=False)]
    history = {"train/loss": train, "val/loss": val}
    return judge_training(history | {"train/accuracy": accuracies, "val/accuracy": known})


def test_overfitting_is_a_rising_validation_loss_with_a_falling_training_loss() -> None:
    finding = judge([0.5, 0.3, 0.2, 0.1], [0.4, 0.3, 0.35, 0.5])
    assert finding == (
        Training.OVERFITTING,
        "Overfitting: the validation loss is lowest in epoch 2 (0.3000) and rises to 0.5000, while "
        "the training loss keeps falling, from 0.3000 to 0.1000.",
        2,
    )


@pytest.mark.parametrize(
    ("train", "val", "kind"),
    [
        ([0.5, 0.3, 0.2, 0.1], [0.4, 0.3, 0.31, 0.32], Training.PLATEAU),  # within a tenth
        ([0.5, 0.3, 0.2, 0.1], [0.4, 0.3, 0.34, 0.34], Training.OVERFITTING),  # above a tenth
        ([0.5, 0.3, 0.2, 0.1], [0.4, 0.3, 0.6, 0.32], Training.PLATEAU),  # one high value
        ([0.5, 0.3, 0.2], [0.4, 0.3, 0.6], Training.STILL_IMPROVING),  # only one epoch after it
        # A rise by a half was not the end of the improvement before: it is noise.
        ([0.5, 0.3, 0.2, 0.1, 0.05], [0.4, 0.6, 0.3, 0.45, 0.45], Training.PLATEAU),
        ([0.5, 0.3, 0.2, 0.1, 0.05], [0.4, 0.6, 0.3, 0.55, 0.55], Training.OVERFITTING),
        # Epochs without a validation do not count.
        ([0.5, 0.4, 0.3, 0.2, 0.1], [0.4, NAN, 0.5, NAN, 0.6], Training.OVERFITTING),
        ([0.5, 0.4, 0.3, 0.2, 0.1], [0.4, NAN, NAN, NAN, 0.6], Training.TOO_FEW_EPOCHS),
        ([0.5, 0.3, 0.35, 0.4], [0.4, 0.3, 0.6, 0.6], Training.UNSTABLE),  # both rise
        ([1e-4, 1e-5, 1e-6, 1e-7], [2e-5, 0.0, 1e-4, 1e-4], Training.PLATEAU),  # too small
    ],
)
def test_a_rise_counts_if_it_is_more_than_noise_and_lasts(
    train: list[float], val: list[float], kind: Training
) -> None:
    assert judge(train, val).kind is kind


def test_fluctuation_of_the_first_epochs_does_not_hide_overfitting() -> None:
    smooth = [3.0, 1.0, *(0.9 - 0.05 * epoch for epoch in range(12)), 0.5, 0.6]
    wild = [1.0, 3.0, *smooth[2:]]
    train = [0.5 - 0.03 * epoch for epoch in range(16)]
    assert judge(train, smooth).kind is Training.OVERFITTING
    assert judge(train, wild).kind is Training.OVERFITTING
    assert judge(train[-6:], [wild[0], wild[1], *wild[-4:]]).kind is Training.PLATEAU


@pytest.mark.parametrize(
    ("train", "val", "text"),
    [
        ([0.5, NAN], [0.4, NAN], "the training loss is NaN or infinite in epoch 2"),
        ([0.5, INF, INF], [0.4, 0.3, 0.3], "the training loss is NaN or infinite in epoch 2"),
        ([0.5, 0.4, 0.3], [0.4, INF, 0.3], "the validation loss is NaN or infinite in epoch 2"),
        ([0.5, 0.4, INF], [0.4, INF, 0.3], "the validation loss is NaN or infinite in epoch 2"),
    ],
)
def test_a_loss_without_a_finite_value_is_a_divergence(
    train: list[float], val: list[float], text: str
) -> None:
    finding = judge(train, val)
    assert finding.kind is Training.DIVERGED
    assert text in finding.text


def test_an_unknown_training_loss_is_that_of_the_epoch_before() -> None:
    accuracies = [0.9, NAN, 0.95, 0.96]
    history = {"train/loss": [0.5, NAN, 0.2, 0.1], "train/accuracy": accuracies}
    history |= {"val/loss": [0.4, 0.3, 0.5, 0.5], "val/accuracy": [0.9] * 4}
    finding = judge_training(history)
    assert finding.kind is Training.OVERFITTING
    assert "keeps falling, from 0.5000 to 0.1000" in finding.text


def test_an_epoch_that_was_not_measured_is_no_divergence() -> None:
    accuracies = [0.9, NAN, 0.95, 0.96, 0.96]
    finding = judge([0.5, NAN, 0.2, 0.2, 0.2], [0.4, NAN, 0.2, 0.2, 0.2], accuracies)
    assert finding.kind is Training.PLATEAU


@pytest.mark.parametrize(
    ("train", "kind"),
    [
        ([0.5, 0.3, 0.4, 2.0], Training.DIVERGING),
        ([0.5, 0.3, 0.4, 0.49], Training.PLATEAU),  # not above the first epoch
        ([0.5, 0.4, 0.45, 0.55], Training.PLATEAU),  # not half above the lowest
        ([0.5, 0.3, 2.0, 0.3], Training.PLATEAU),  # recovered
    ],
)
def test_a_training_loss_that_grows_far_is_diverging(train: list[float], kind: Training) -> None:
    finding = judge(train, [0.4, 0.3, 0.3, 0.3])
    assert finding.kind is kind
    if kind is Training.DIVERGING:
        assert "grows from 0.3000 in epoch 2 to 2.0000" in finding.text


def test_a_huge_loss_is_shown_with_an_exponent() -> None:
    finding = judge([0.5, 0.3, 1e5, 1e300], [0.4, 0.3, 0.3, 0.3])
    assert "grows from 0.3000 in epoch 2 to 1e+300." in finding.text


def test_a_low_accuracy_that_does_not_change_is_underfitting() -> None:
    flat = [2.31, 2.30, 2.30, 2.30]
    finding = judge(flat, flat, [0.1, 0.11, 0.11, 0.1135])
    assert finding.kind is Training.UNDERFITTING
    assert "the accuracy reaches at most 11.35 %" in finding.text
    assert "no longer falls (2.3000)" in finding.text


def test_a_low_accuracy_that_still_changes_needs_more_epochs() -> None:
    finding = judge([2.0, 1.5, 1.0, 0.8], [2.0, 1.5, 1.1, 0.9], [0.3, 0.5, 0.6, 0.7])
    assert finding.kind is Training.STILL_IMPROVING
    assert "at most 70.00 %" in finding.text
    assert "more epochs would help" in finding.text


def test_augmentation_is_not_mistaken_for_underfitting() -> None:
    flat = [0.5, 0.4, 0.4, 0.4]
    history = {"train/loss": flat, "val/loss": [0.2, 0.1, 0.1, 0.1]}
    low, high = {"train/accuracy": [0.85] * 4}, {"val/accuracy": [0.98] * 4}
    assert judge_training(history | low | high).kind is Training.PLATEAU
    assert judge_training(history | low).kind is Training.UNDERFITTING


@pytest.mark.parametrize(("accuracy", "low"), [(0.8999, True), (0.9, False)])
def test_an_accuracy_below_nine_tenths_is_low(accuracy: float, low: bool) -> None:
    finding = judge([0.5, 0.4, 0.4, 0.4], [0.5, 0.4, 0.4, 0.4], accuracy)
    assert finding.kind is (Training.UNDERFITTING if low else Training.PLATEAU)


def test_a_loss_that_still_falls_by_a_tenth_needs_more_epochs() -> None:
    finding = judge([0.5, 0.4, 0.3, 0.2], [0.5, 0.4, 0.3, 0.2])
    assert finding == (
        Training.STILL_IMPROVING,
        "Still improving: the validation loss ends at 0.2000; more epochs would help.",
        4,
    )


def test_a_plateau_names_the_lowest_loss() -> None:
    finding = judge([0.5, 0.2, 0.1, 0.1], [0.5, 0.2, 0.205, 0.21])
    assert finding.text == (
        "No overfitting: the validation loss is lowest in epoch 2 (0.2000) and ends close to it "
        "(0.2100)."
    )
    finding = judge([0.5, 0.2, 0.1, 0.1, 0.1], [0.4, 0.6, 0.3, 0.45, 0.45])
    assert finding.text.endswith("epoch 3 (0.3000) and ends at 0.4500, within its fluctuation.")
    finding = judge([0.5, 0.2, 0.2, 0.2], [0.5, 0.2, 0.199, 0.198])
    assert finding.text.endswith(
        "epoch 4 (0.1980), the last one, and falls only slightly at the end."
    )


def test_without_validation_overfitting_is_unknown() -> None:
    finding = judge_training({"train/loss": [0.5, 0.3, 0.1], "train/accuracy": [0.9, 0.95, 0.99]})
    assert finding.kind is Training.NO_VALIDATION
    assert "changes from 0.5000 to 0.1000" in finding.text


@pytest.mark.parametrize("count", range(MIN_EPOCHS + 1))
def test_a_trend_needs_three_epochs(count: int) -> None:
    losses = [0.5, 0.3, 0.29][:count]
    assert (judge(losses, losses).kind is Training.TOO_FEW_EPOCHS) == (count < MIN_EPOCHS)


losses = st.floats(0.0, 5.0)
curves = st.integers(0, 12).flatmap(
    lambda count: st.tuples(*[st.lists(losses, min_size=count, max_size=count)] * 2)
)


@given(curves, st.floats(0, 1))
def test_every_number_of_a_sentence_is_in_the_curves(
    pair: tuple[list[float], list[float]], accuracy: float
) -> None:
    train, val = pair
    finding = judge(train, val, accuracy)
    known = {f"{value:.4f}" for value in [*train, *val]}
    assert set(re.findall(r"\d+\.\d{4}", finding.text)) <= known
    for epoch in re.findall(r"lowest in epoch (\d+)", finding.text):
        assert val[int(epoch) - 1] == min(val)
        assert finding.lowest == int(epoch)
    for share in re.findall(r"at most (\S+) %", finding.text):
        assert float(share) == pytest.approx(100 * accuracy, abs=0.006)
    if finding.kind is Training.OVERFITTING:
        assert finding.lowest is not None
        assert val[-1] > 1.1 * min(val)
        assert train[-1] < train[finding.lowest - 1]
