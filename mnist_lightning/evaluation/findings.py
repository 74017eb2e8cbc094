"""Judge the results of a test: one sentence for each section of the report, with its evidence.

All functions are pure. A claim beyond the counts needs a test of significance, at 5 %. The criteria
and their reasons: `docs/decisions/report-sentences.md`.
"""

import shlex
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.errors import PROGRAM
from mnist_lightning.evaluation.metrics import Floats, Labels
from mnist_lightning.evaluation.non_digits import RECALL, SIMILAR, Detection
from mnist_lightning.text import confidence, percent, plural

SIGNIFICANT = 0.05
MAX_NAMED = 3  # confusions with the same count
INK = 127  # a pixel above it is ink, as in the outlines of the figure
CLEAR_MARGIN = 0.5  # a smaller margin leaves another label within reach


class Kind(StrEnum):
    """What a sentence says."""

    NO_MISTAKES = "no mistakes"
    FREQUENT_CONFUSION = "frequent confusion"
    TOO_FEW_MISTAKES = "too few mistakes"
    HARDER_CLASS = "harder class"
    NO_HARDER_CLASS = "no harder class"
    CALIBRATED = "calibrated"
    OVERCONFIDENT = "overconfident"
    UNDERCONFIDENT = "underconfident"
    MISCALIBRATED = "miscalibrated"  # overconfident in some bins, underconfident in others
    TOO_FEW_IMAGES = "too few images"
    COSTLY_CORRUPTION = "costly corruption"
    NO_COSTLY_CORRUPTION = "no costly corruption"
    NON_DIGITS = "non-digits"
    DEPENDS_ON_INK = "depends on ink"
    DEPENDS_ON_PAPER = "depends on paper"
    NO_DEPENDENCE = "no dependence"
    CLOSE_CALLS = "close calls"
    NO_CLOSE_CALLS = "no close calls"
    NO_CORRECT = "no correct prediction"
    CONFIDENT_MISTAKES = "confident mistakes"
    UNSURE_MISTAKES = "unsure mistakes"
    FIRST_IMAGES = "first images"
    REPRODUCIBLE = "reproducible"
    UNVERIFIED = "unverified"


class Finding(NamedTuple):
    """A judgment about results: what it says, and one or two sentences."""

    kind: Kind
    text: str


def judge_confusions(counts: NDArray[np.int64]) -> Finding:
    """Name the most frequent confusion, and judge whether its count may be chance.

    By chance, each mistake is one of the confusions of its true label with the same probability.
    The probability that one of all confusions then has this count is at most the sum of the
    probabilities of each (Bonferroni).

    Args:
        counts: (C, C), a confusion matrix: true labels down, predicted labels across.
    """
    from scipy.stats import binom

    wrong = counts - np.diag(np.diag(counts))
    mistakes, top = int(wrong.sum()), int(wrong.max(initial=0))
    if mistakes == 0:
        return Finding(
            Kind.NO_MISTAKES, f"All {int(counts.sum()):,} test images are predicted correctly."
        )
    shares = counts.sum(axis=1) / counts.sum() / (len(counts) - 1)
    p = float((binom.sf(top - 1, mistakes, shares) * (len(counts) - 1)).sum())
    pairs = [f"{true} read as {predicted}" for true, predicted in np.argwhere(wrong == top)]
    times = "once" if top == 1 else f"{top:,} times"
    text = f"Most frequent confusion: {pairs[0]}, {times} (of {plural(mistakes, 'mistake')})."
    if len(pairs) > 1:
        text = f"{len(pairs)} confusions are the most frequent, {times} each"
        if len(pairs) <= MAX_NAMED:
            text = f"Most frequent confusions: {' and '.join(pairs)}, {times} each"
        text = f"{text} (of {plural(mistakes, 'mistake')})."
    if p < SIGNIFICANT:
        return Finding(Kind.FREQUENT_CONFUSION, f"{text} This is more than chance ({_p(p)}).")
    chance = "Too few mistakes to tell: chance alone may give such a count"
    return Finding(Kind.TOO_FEW_MISTAKES, f"{text} {chance}.")


def judge_classes(true: Labels, correct: NDArray[np.bool_]) -> Finding:
    """Name the label with the lowest accuracy, and judge whether it differs from the others.

    Fisher's exact test compares it with all other labels. As it is the lowest of C labels, its p is
    multiplied by C (Bonferroni).

    Args:
        true: (N,) labels.
        correct: (N,) whether each prediction is correct.
    """
    from scipy.stats import fisher_exact

    labels, support = np.unique(true, return_counts=True)
    hits = np.array([int(correct[true == label].sum()) for label in labels])
    place = int(np.argmin(hits / support))
    others_hits, others = int(hits.sum() - hits[place]), int(support.sum() - support[place])
    own = f"{percent(hits[place] / support[place])} of {plural(int(support[place]), 'image')}"
    if others == 0:
        text = f"All test images have the label {labels[place]}: {own} are correct."
        return Finding(Kind.NO_HARDER_CLASS, text)
    table = [
        [int(hits[place]), int(support[place] - hits[place])],
        [others_hits, others - others_hits],
    ]
    p = min(1.0, float(fisher_exact(table, alternative="less")[1]) * len(labels))
    rest = percent(others_hits / others)
    text = f"Lowest accuracy: {labels[place]}, with {own}; all other labels: {rest}."
    if p < SIGNIFICANT:
        return Finding(Kind.HARDER_CLASS, f"{text} The difference is significant ({_p(p)}).")
    if hits[place] == support[place]:
        return Finding(Kind.NO_HARDER_CLASS, "Every label is always correct.")
    return Finding(Kind.NO_HARDER_CLASS, f"{text} The difference may be chance ({_p(p)}).")


def judge_mistakes(true: Labels, probabilities: Floats, sure: float) -> Finding:
    """Count the mistakes that the network is sure of.

    Args:
        true: (N,) labels.
        probabilities: (N, C).
        sure: the confidence from which a prediction is not marked as unsure.
    """
    wrong = probabilities.argmax(axis=1) != true
    highest = probabilities[wrong].max(axis=1)
    if not len(highest):
        return Finding(Kind.NO_MISTAKES, "No mistakes.")
    count = int((highest >= sure).sum())
    text = (
        f"Mistakes with a confidence of at least {percent(sure, 0)}: {count:,} of "
        f"{len(highest):,}. The highest is {confidence(float(highest.max()))}."
    )
    return Finding(Kind.CONFIDENT_MISTAKES if count else Kind.UNSURE_MISTAKES, text)


def judge_closest_calls(true: Labels, probabilities: Floats) -> Finding:
    """Name the correct prediction with the smallest margin, and count the small ones.

    Args:
        true: (N,) labels.
        probabilities: (N, C), at least two labels.
    """
    indices = np.flatnonzero(probabilities.argmax(axis=1) == true)
    if not len(indices):
        return Finding(Kind.NO_CORRECT, "No prediction is correct.")
    top_two = np.sort(probabilities[indices], axis=1)[:, -2:]
    margins = top_two[:, 1] - top_two[:, 0]
    place = int(margins.argmin())
    index, second = int(indices[place]), int(np.argsort(probabilities[indices[place]])[-2])
    low, high = (confidence(float(share)) for share in top_two[place])
    count = int((margins < CLEAR_MARGIN).sum())
    text = (
        f"Correct predictions less than {100 * CLEAR_MARGIN:.0f} points ahead of another label: "
        f"{count:,} of {len(indices):,}. The closest: image {index}, a {true[index]} with {high} "
        f"before {second} with {low}."
    )
    return Finding(Kind.CLOSE_CALLS if count else Kind.NO_CLOSE_CALLS, text)


def judge_corruptions(kinds: Sequence[Mapping[str, Any]], clean: float) -> Finding:
    """Name the corruptions that cost the most and the least accuracy, on average.

    A corruption has an effect if an interval of its accuracies is below the clean accuracy.

    Args:
        kinds: the fields of `plots.Robustness` of each corruption.
        clean: the accuracy on the original images.
    """
    losses = [clean - float(np.mean(kind["accuracies"])) for kind in kinds]
    worst, least = int(np.argmax(losses)), int(np.argmin(losses))
    strongest = kinds[worst]["accuracies"][-1]
    if not any(high < clean for kind in kinds for _, high in kind["intervals"]):
        text = "No corruption lowers the accuracy significantly, at any strength."
        return Finding(Kind.NO_COSTLY_CORRUPTION, text)
    text = (
        f"The corruption that costs most: {kinds[worst]['name']}, {100 * losses[worst]:.1f} points "
        f"on average ({percent(clean, 1)} without, {percent(strongest, 1)} at its strongest). The "
        f"one that costs least: {kinds[least]['name']}, {_points(losses[least])}."
    )
    return Finding(Kind.COSTLY_CORRUPTION, text)


def _points(loss: float) -> str:
    return f"{100 * loss:.1f} points" if loss >= 0 else f"a gain of {-100 * loss:.1f} points"


def judge_non_digits(detections: Sequence[Detection]) -> Finding:
    """Count the non-digits that are accepted as digits, and name the kind with the highest share.

    Letters that look like digits do not count.
    """
    counted = [each for each in detections if SIMILAR not in each.kind]
    total = sum(each.images for each in counted)
    accepted = sum(each.accepted * each.images for each in counted)
    worst = max(counted, key=lambda each: each.accepted)
    text = (
        f"A limit of confidence that accepts {percent(RECALL, 0)} of the test digits also accepts "
        f"{round(accepted):,} of {total:,} images without digits ({percent(accepted / total, 1)})."
    )
    if worst.accepted > 0:
        text += f" The highest share is {percent(worst.accepted, 1)}, for {worst.kind}."
    return Finding(Kind.NON_DIGITS, text)


def judge_attributions(images: NDArray[np.uint8], maps: Mapping[str, Floats]) -> Finding:
    """Judge whether predictions depend more on a pixel of ink than on one of paper.

    For each image and map: is the ink's share of the map larger than its share of the image? A sign
    test compares the numbers of both cases.

    Args:
        images: (N, 28, 28), 0 for paper.
        maps: by name, attribution maps (N, 28, 28), at least 0.
    """
    from scipy.stats import binomtest

    ink = images > INK
    area = ink.mean(axis=(1, 2))
    shares, more, less = [], 0, 0
    for name, values in maps.items():
        totals = values.sum(axis=(1, 2))
        known = (totals > 0) & (area > 0)
        share = (values * ink).sum(axis=(1, 2))[known] / totals[known]
        more, less = (
            more + int((share > area[known]).sum()),
            less + int((share < area[known]).sum()),
        )
        if len(share):
            shares.append(f"{percent(share.mean(), 0)} of the {name}")
    if not shares:
        return Finding(Kind.NO_DEPENDENCE, "No pixel changes a prediction.")
    text = (
        f"The ink covers {percent(area.mean(), 0)} of these images and has {' and '.join(shares)}"
    )
    p = float(binomtest(more, more + less).pvalue) if more + less else 1.0
    if p >= SIGNIFICANT:
        return Finding(Kind.NO_DEPENDENCE, f"{text}: too few images to tell ({_p(p)}).")
    if more > less:
        return Finding(Kind.DEPENDS_ON_INK, f"{text}: a pixel of ink matters more than paper.")
    return Finding(Kind.DEPENDS_ON_PAPER, f"{text}: a pixel of ink matters less than paper.")


def judge_first(correct: NDArray[np.bool_], count: int) -> Finding:
    """Count the correct predictions among the first images."""
    shown = correct[:count]
    number = f"{int(shown.sum())} of the first {plural(len(shown), 'test image')}"
    text = f"{number} {'is' if shown.sum() == 1 else 'are'} predicted correctly."
    return Finding(Kind.FIRST_IMAGES, text)


def judge_reproduction(summary: Mapping[str, Any], config: str) -> Finding:
    """Tell whether the run can be repeated with the same bits, and by which command.

    Args:
        summary: the content of `summary.json`.
        config: the path of the run's configuration.
    """
    command = f"{PROGRAM} fit --config {shlex.quote(config)}"
    for name in ("init_from", "teacher"):
        if name in summary:
            command = f"{command} --{name} RUN"
    if summary.get("resume") == "exact":
        text = (
            "With this device, these versions and this data, the same command gives the same bits"
        )
        return Finding(Kind.REPRODUCIBLE, f"{text}: {command}")
    text = "The run has parts that are not verified, so the same command may give other bits"
    return Finding(Kind.UNVERIFIED, f"{text}: {command}")


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
