"""The judgments about the results of a test."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mnist_lightning.evaluation import findings, metrics
from mnist_lightning.evaluation.calibration_finding import judge_calibration
from mnist_lightning.evaluation.findings import Finding, Kind
from mnist_lightning.evaluation.non_digits import Detection
from mnist_lightning.networks.calibration import apply_temperature

CLASSES = 10


def confusion_matrix(*cells: tuple[int, int, int], images: int = 100) -> NDArray[np.int64]:
    """Return a matrix with `images` of each label; `cells` are (true, predicted, count)."""
    counts = np.diag(np.full(CLASSES, images))
    for true, predicted, count in cells:
        counts[true, predicted] = count
        counts[true, true] -= count
    return counts


def test_the_most_frequent_confusion_is_named_with_its_count() -> None:
    finding = findings.judge_confusions(confusion_matrix((7, 2, 14), (4, 9, 3)))
    assert finding == (
        Kind.FREQUENT_CONFUSION,
        "Most frequent confusion: 7 read as 2, 14 times (of 17 mistakes). This is more than chance "
        "(p < 0.001).",
    )


def test_a_few_mistakes_do_not_show_a_frequent_confusion() -> None:
    finding = findings.judge_confusions(confusion_matrix((7, 2, 2), (4, 9, 1), (3, 5, 1)))
    assert finding.kind is Kind.TOO_FEW_MISTAKES
    assert finding.text.startswith("Most frequent confusion: 7 read as 2, 2 times (of 4 mistakes).")
    # 0 to 8 read as the next label, once each.
    once = findings.judge_confusions(confusion_matrix(*((n, n + 1, 1) for n in range(9))))
    assert once.kind is Kind.TOO_FEW_MISTAKES
    assert once.text.startswith("9 confusions are the most frequent, once each (of 9 mistakes).")


def test_confusions_with_the_same_count_are_all_named() -> None:
    finding = findings.judge_confusions(confusion_matrix((7, 2, 8), (4, 9, 8)))
    assert finding.text.startswith("Most frequent confusions: 4 read as 9 and 7 read as 2, 8 times")


def test_without_mistakes_there_is_no_confusion() -> None:
    assert findings.judge_confusions(confusion_matrix()) == (
        Kind.NO_MISTAKES,
        "All 1,000 test images are predicted correctly.",
    )


def test_chance_alone_rarely_makes_a_frequent_confusion() -> None:
    """In 200 tests with mistakes by chance, the judgment is wrong in at most 5 % plus noise."""
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        true = generator.integers(0, CLASSES, 60)
        predicted = (true + generator.integers(1, CLASSES, 60)) % CLASSES
        counts = metrics.confusion(true, predicted) + np.diag(np.full(CLASSES, 100))
        wrong += findings.judge_confusions(counts).kind is Kind.FREQUENT_CONFUSION
    assert wrong <= 20


def judge_labels(images: int, mistakes: dict[int, int]) -> Finding:
    """Judge `images` of each label, of which some are mistakes."""
    true = np.repeat(np.arange(CLASSES), images)
    correct = np.ones(len(true), bool)
    for label, count in mistakes.items():
        correct[label * images : label * images + count] = False
    return findings.judge_classes(true, correct)


def test_a_label_with_a_significantly_lower_accuracy_is_named() -> None:
    finding = judge_labels(100, {8: 20, 3: 2})
    assert finding.kind is Kind.HARDER_CLASS
    assert finding.text.startswith(
        "Lowest accuracy: 8, with 80.00 % of 100 images; all other labels: 99.78 %. The difference "
        "is significant"
    )


def test_a_small_difference_between_labels_may_be_chance() -> None:
    finding = judge_labels(10, {8: 2, 3: 1})
    assert finding.kind is Kind.NO_HARDER_CLASS
    assert "Lowest accuracy: 8, with 80.00 % of 10 images" in finding.text
    assert "may be chance" in finding.text
    assert judge_labels(10, {}).text == "Every label is always correct."
    one = findings.judge_classes(np.array([3, 3]), np.array([True, False]))
    assert one.text == "All test images have the label 3: 50.00 % of 2 images are correct."


def make_predictions(
    count: int, temperature: float, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return confidence and correctness of a network whose logits are too large by a factor.

    The labels are drawn from the probabilities at temperature 1. A temperature below 1 then makes
    the network overconfident.
    """
    generator = np.random.default_rng(seed)
    logits = 2.5 * generator.standard_normal((count, CLASSES))
    true_probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    draws = generator.random((count, 1))
    true = (true_probabilities.cumsum(axis=1) < draws).sum(axis=1).clip(max=CLASSES - 1)
    probabilities = apply_temperature(true_probabilities, temperature)
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == true


@pytest.mark.parametrize(
    ("temperature", "kind"),
    [(1.0, Kind.CALIBRATED), (0.5, Kind.OVERCONFIDENT), (2.0, Kind.UNDERCONFIDENT)],
)
def test_the_calibration_of_a_known_network_is_recognized(temperature: float, kind: Kind) -> None:
    confidence, correct = make_predictions(5000, temperature)
    finding = judge_calibration(confidence, correct)
    assert finding.kind is kind
    error = metrics.calibration(confidence, correct).error
    assert f"calibration error of {100 * error:.2f} %" in finding.text
    if kind is not Kind.CALIBRATED:
        assert f"the mean confidence is {100 * confidence.mean():.2f} %" in finding.text
        assert f"the accuracy {100 * correct.mean():.2f} %" in finding.text


def test_errors_in_both_directions_are_miscalibrated() -> None:
    # 90 % confident and 80 % correct, and the reverse: the means are equal.
    confidence = np.repeat([0.9, 0.7], 1000)
    correct = np.tile(np.arange(10) < 8, 200)
    finding = judge_calibration(confidence, correct)
    assert finding.kind is Kind.MISCALIBRATED
    assert "too high in some bins and too low in others" in finding.text
    assert "the mean confidence is 80.00 %, the accuracy 80.00 %" in finding.text


def test_too_few_images_do_not_show_the_calibration() -> None:
    confidence, correct = make_predictions(40, 1.0)
    finding = judge_calibration(confidence, correct, 1.25)
    assert finding.kind is Kind.TOO_FEW_IMAGES
    assert finding.text.startswith("Too few images to tell: with 40 images")
    assert finding.text.endswith("The run has the temperature 1.250.")
    # A gross error shows nevertheless.
    sure = judge_calibration(np.full(40, 0.99), np.arange(40) < 10)
    assert sure.kind is Kind.OVERCONFIDENT


def test_a_calibrated_network_is_rarely_judged_to_be_miscalibrated() -> None:
    kinds = [judge_calibration(*make_predictions(2000, 1.0, seed)).kind for seed in range(60)]
    # 5 % of 60 are 3; more than 9 have a probability of 0.001.
    assert kinds.count(Kind.CALIBRATED) >= 51


def test_the_simulation_is_the_same_in_each_call() -> None:
    confidence, correct = make_predictions(500, 0.9)
    assert judge_calibration(confidence, correct) == judge_calibration(confidence, correct)


def one_hot(labels: list[int], confidence: list[float]) -> NDArray[np.float64]:
    """Return probabilities with a confidence in a label; the next label gets the rest."""
    rows = np.zeros((len(labels), CLASSES))
    for row, label, share in zip(rows, labels, confidence, strict=True):
        row[label], row[(label + 1) % CLASSES] = share, 1 - share
    return rows


def test_confident_mistakes_are_counted() -> None:
    probabilities = one_hot([1, 2, 3, 4], [0.95, 0.8, 0.7, 0.9])
    finding = findings.judge_mistakes(np.array([0, 0, 0, 4]), probabilities, sure=0.8)
    assert finding == (
        Kind.CONFIDENT_MISTAKES,
        "Mistakes with a confidence of at least 80 %: 2 of 3. The highest is 95.0 %.",
    )
    unsure = findings.judge_mistakes(np.array([1, 2, 0, 4]), probabilities, sure=0.8)
    assert unsure.kind is Kind.UNSURE_MISTAKES
    assert (
        unsure.text == "Mistakes with a confidence of at least 80 %: 0 of 1. The highest is 70.0 %."
    )
    none = findings.judge_mistakes(np.array([1, 2, 3, 4]), probabilities, sure=0.8)
    assert none.kind is Kind.NO_MISTAKES


def test_the_closest_correct_prediction_is_named() -> None:
    probabilities = one_hot([1, 2, 3, 4], [0.95, 0.51, 0.7, 0.505])
    finding = findings.judge_closest_calls(np.array([1, 2, 3, 0]), probabilities)
    assert finding == (
        Kind.CLOSE_CALLS,
        "Correct predictions less than 50 points ahead of another label: 2 of 3. The closest: "
        "image 1, a 2 with 51.0 % before 3 with 49.0 %.",
    )
    clear = findings.judge_closest_calls(np.array([1, 0, 0, 0]), probabilities)
    assert clear.kind is Kind.NO_CLOSE_CALLS
    assert "another label: 0 of 1. The closest: image 0, a 1 with 95.0 %" in clear.text
    none = findings.judge_closest_calls(np.array([0, 0, 0, 0]), probabilities)
    assert none == (Kind.NO_CORRECT, "No prediction is correct.")


def corruption(name: str, *accuracies: float, half: float = 0.02) -> dict[str, object]:
    intervals = [(accuracy - half, accuracy + half) for accuracy in accuracies]
    return {"name": name, "accuracies": accuracies, "intervals": intervals}


def test_the_most_and_the_least_costly_corruption_are_named() -> None:
    kinds = [corruption("noise", 0.9, 0.7), corruption("shift", 0.98, 0.96)]
    finding = findings.judge_corruptions(kinds, clean=0.98)
    assert finding == (
        Kind.COSTLY_CORRUPTION,
        "The corruption that costs most: noise, 18.0 points on average (98.0 % without, 70.0 % at "
        "its strongest). The one that costs least: shift, 1.0 points.",
    )


def test_a_corruption_that_helps_is_a_gain() -> None:
    kinds = [corruption("noise", 0.9, 0.7), corruption("thicker strokes", 0.98, 1.0)]
    text = findings.judge_corruptions(kinds, clean=0.96).text
    assert text.endswith("The one that costs least: thicker strokes, a gain of 3.0 points.")


def test_a_loss_within_the_intervals_is_no_cost() -> None:
    kinds = [corruption("noise", 0.97, 0.965), corruption("shift", 0.98, 0.96)]
    assert findings.judge_corruptions(kinds, clean=0.98).kind is Kind.NO_COSTLY_CORRUPTION


def test_the_non_digits_that_pass_are_counted_without_letters_like_digits() -> None:
    rows = [
        Detection("letters", 100, 0.99, 0.04),
        Detection("dots", 50, 1.0, 0.0),
        Detection("letters like digits", 60, 0.8, 0.5),
    ]
    finding = findings.judge_non_digits(rows)
    assert finding == (
        Kind.NON_DIGITS,
        "A limit of confidence that accepts 95 % of the test digits also accepts 4 of 150 images "
        "without digits (2.7 %). The highest share is 4.0 %, for letters.",
    )
    none = findings.judge_non_digits(rows[1:])
    assert none.text.endswith("also accepts 0 of 50 images without digits (0.0 %).")


@pytest.mark.parametrize(
    ("weight_of_ink", "kind"),
    [(5.0, Kind.DEPENDS_ON_INK), (0.2, Kind.DEPENDS_ON_PAPER), (1.0, Kind.NO_DEPENDENCE)],
)
def test_attributions_on_ink_and_on_paper_are_told_apart(weight_of_ink: float, kind: Kind) -> None:
    images = np.zeros((10, 28, 28), np.uint8)
    images[:, 7:21, 7:21] = 255  # a quarter of the pixels
    maps = {"saliency": np.where(images > 0, weight_of_ink, 1.0)}
    finding = findings.judge_attributions(images, maps)
    assert finding.kind is kind
    share = round(100 * weight_of_ink / (weight_of_ink + 3))
    assert f"The ink covers 25 % of these images and has {share} % of the saliency" in finding.text


def test_few_attributions_do_not_show_a_dependence() -> None:
    images = np.zeros((4, 28, 28), np.uint8)
    images[:, 7:21, 7:21] = 255
    finding = findings.judge_attributions(images, {"saliency": (images > 0).astype(float)})
    assert finding.kind is Kind.NO_DEPENDENCE
    assert "too few images to tell" in finding.text
    flat = findings.judge_attributions(images, {"saliency": np.zeros((4, 28, 28))})
    assert flat.text == "No pixel changes a prediction."


def test_the_first_images_are_counted() -> None:
    correct = np.array([True, True, False, True])
    assert findings.judge_first(correct, 3).text == (
        "2 of the first 3 test images are predicted correctly."
    )
    assert findings.judge_first(correct[2:], 6).text == (
        "1 of the first 2 test images is predicted correctly."
    )


def test_the_reproduction_depends_on_the_run() -> None:
    exact = findings.judge_reproduction({"resume": "exact"}, "runs/a b/config.yaml")
    assert exact.kind is Kind.REPRODUCIBLE
    assert exact.text.endswith("fit --config 'runs/a b/config.yaml'")
    other = findings.judge_reproduction({"resume": "unverified", "init_from": "x"}, "config.yaml")
    assert other.kind is Kind.UNVERIFIED
    assert other.text.endswith("fit --config config.yaml --init_from RUN")


@given(st.integers(0, 10_000), st.integers(1, 300), st.floats(0, 1))
def test_numbers_of_sentences_equal_numbers_computed_from_the_arrays(
    seed: int, count: int, skill: float
) -> None:
    generator = np.random.default_rng(seed)
    true = generator.integers(0, CLASSES, count)
    probabilities = generator.dirichlet(np.full(CLASSES, 0.2), count)
    probabilities[np.arange(count), true] += 2 * skill
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    pairs = [(t, p) for t, p in zip(true.tolist(), predicted.tolist(), strict=True) if t != p]
    text = findings.judge_confusions(metrics.confusion(true, predicted)).text
    named = re.findall(r"(\d) read as (\d)", text)
    highest = max(map(pairs.count, pairs), default=0)
    for first, second in named:
        assert pairs.count((int(first), int(second))) == highest
    if pairs:
        assert f"(of {len(pairs)} mistake" in text
        assert ("once" if highest == 1 else f"{highest} times") in text
    text = findings.judge_classes(true, predicted == true).text
    if match := re.match(r"Lowest accuracy: (\d), with (\S+) % of (\d+) image", text):
        hits = {label: (predicted == true)[true == label] for label in set(true.tolist())}
        own = hits[int(match[1])]
        assert own.mean() == min(each.mean() for each in hits.values())
        assert match[2] == f"{100 * own.mean():.2f}"
        assert int(match[3]) == len(own)
    text = findings.judge_mistakes(true, probabilities, 0.8).text
    sure = [place for place, (t, p) in enumerate(zip(true, predicted, strict=True)) if t != p]
    sure = [place for place in sure if probabilities[place].max() >= 0.8]
    assert not pairs or f": {len(sure)} of {len(pairs)}. " in text
