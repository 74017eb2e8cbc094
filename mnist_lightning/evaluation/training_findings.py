"""Judge a training by its loss and accuracy of each epoch: one sentence.

The criteria and their reasons: `docs/decisions/report-sentences.md`.
"""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from mnist_lightning.text import percent, plural

MIN_EPOCHS = 3  # with a loss; fewer do not show a trend
MIN_CHANGE = 0.1  # of a loss, as a share of its lowest value: a smaller change is noise
LARGE_LOSS = 1000.0  # is shown with three digits and an exponent
TINY_LOSS = 0.001  # a smaller change does not matter
MIN_GROWTH = 0.5  # of the training loss above its lowest value: the training diverges
LOW_ACCURACY = 0.9  # a linear classifier reaches 92 % on MNIST's training images
NOISE_EPOCHS = 10  # before the lowest loss: earlier ones fluctuate more
RECENT_EPOCHS = 2  # a trend at the end must show in their best loss


class Training(StrEnum):
    """What the curves of a training show."""

    DIVERGED = "diverged"  # a loss is NaN or Inf
    DIVERGING = "diverging"  # the training loss grows
    OVERFITTING = "overfitting"
    UNDERFITTING = "underfitting"
    STILL_IMPROVING = "still improving"
    UNSTABLE = "unstable"  # the validation loss rises, but not by overfitting
    PLATEAU = "plateau"
    NO_VALIDATION = "no validation"
    TOO_FEW_EPOCHS = "too few epochs"


# The kinds that the end of `fit` reports. It has reported NaN and Inf when they occurred.
PROBLEMS = (Training.DIVERGING, Training.OVERFITTING, Training.UNDERFITTING)


class TrainingFinding(NamedTuple):
    """A judgment about a training.

    Attributes:
        kind: what the curves show.
        text: one or two sentences.
        lowest: the epoch with the lowest validation loss, from 1; None if there is none.
    """

    kind: Training
    text: str
    lowest: int | None = None


class Curve(NamedTuple):
    """The known values of a metric: their epochs, from 1, and the values."""

    epochs: Sequence[int]
    values: Sequence[float]

    @property
    def lowest(self) -> int:
        """The place of the lowest value; of the first one, if there are several."""
        return min(range(len(self.values)), key=self.values.__getitem__)


def judge_training(history: Mapping[str, Sequence[float]]) -> TrainingFinding:
    """Judge a training by its curves; the first criterion that applies decides.

    Args:
        history: for `train|val/loss|accuracy` a value for each epoch; NaN where it was not
            measured. The loss alone is NaN in an epoch in which the network diverged.
    """
    if diverged := _first_diverged(history):
        epoch, stage = diverged
        text = f"Diverged: the {stage} loss is NaN or infinite in epoch {epoch}."
        return TrainingFinding(Training.DIVERGED, f"{text} A lower learning rate may help.")
    train, val = (_curve(history.get(f"{stage}/loss", ())) for stage in ("train", "val"))
    lowest = val.epochs[val.lowest] if val.values else None
    if len(train.values) < MIN_EPOCHS:
        count = plural(len(train.values), "epoch")
        text = f"Too few epochs to tell: {count}, and a trend needs {MIN_EPOCHS}."
        return TrainingFinding(Training.TOO_FEW_EPOCHS, text, lowest)
    if _grows(train):
        low, last = train.values[train.lowest], train.values[-1]
        text = (
            f"Diverging: the training loss grows from {_loss(low)} in epoch "
            f"{train.epochs[train.lowest]} to {_loss(last)}. A lower learning rate may help."
        )
        return TrainingFinding(Training.DIVERGING, text, lowest)
    kind, text = _judge_validation(train, val)
    accuracy = _best_accuracy(history)
    if kind is not Training.OVERFITTING and accuracy is not None and accuracy < LOW_ACCURACY:
        kind, text = _judge_low_accuracy(accuracy, train)
    return TrainingFinding(kind, text, lowest)


def _loss(value: float) -> str:
    return f"{value:.4f}" if abs(value) < LARGE_LOSS else f"{value:.3g}"


def _first_diverged(history: Mapping[str, Sequence[float]]) -> tuple[int, str] | None:
    """Return the epoch and the stage of the first loss that is NaN or Inf.

    A NaN is such a loss only if the accuracy of the epoch is known: otherwise the epoch was not
    measured.
    """
    found = []
    for stage, name in (("train", "training"), ("val", "validation")):
        losses, accuracies = (history.get(f"{stage}/{of}", ()) for of in ("loss", "accuracy"))
        for epoch, loss in enumerate(losses, 1):
            accuracy = accuracies[epoch - 1] if epoch <= len(accuracies) else math.nan
            if math.isinf(loss) or (math.isnan(loss) and not math.isnan(accuracy)):
                found.append((epoch, name))
                break
    return min(found, default=None)


def _curve(values: Sequence[float]) -> Curve:
    """Return the finite values with their epochs."""
    known = [(epoch, value) for epoch, value in enumerate(values, 1) if math.isfinite(value)]
    return Curve([epoch for epoch, _ in known], [value for _, value in known])


def _grows(train: Curve) -> bool:
    """Return whether the training loss ends far above its lowest value and its first one."""
    low, last = train.values[train.lowest], train.values[-1]
    return last > (1 + MIN_GROWTH) * low + TINY_LOSS and last > train.values[0]


def _noise(curve: Curve) -> float:
    """Return how far a loss may be above its lowest value by chance.

    At least a tenth of this value. A larger share, if the loss rose by it from one epoch to the
    next within the last epochs before the lowest value, and fell again.
    """
    before = curve.values[max(0, curve.lowest - NOISE_EPOCHS) : curve.lowest + 1]
    shares = [later / earlier - 1 for earlier, later in pairwise(before) if earlier > 0]
    return max(MIN_CHANGE, *shares, 0) * curve.values[curve.lowest] + TINY_LOSS


def _rises(val: Curve) -> bool:
    """Return whether a loss stays above its lowest value, by more than noise, until the end.

    One high value at the end may be chance: at least two epochs must follow the lowest value.
    """
    limit = val.values[val.lowest] + _noise(val)
    after = val.values[val.lowest + 1 :]
    return len(after) >= RECENT_EPOCHS and min(after[-RECENT_EPOCHS:]) > limit


def _falls(curve: Curve) -> bool:
    """Return whether the best loss of the last two epochs is a tenth below all earlier ones."""
    earlier, recent = curve.values[:-RECENT_EPOCHS], curve.values[-RECENT_EPOCHS:]
    return min(recent) < (1 - MIN_CHANGE) * min(earlier) - TINY_LOSS


def _judge_validation(train: Curve, val: Curve) -> tuple[Training, str]:
    """Judge the validation loss, compared with the training loss in the same epochs."""
    first, last = train.values[0], train.values[-1]
    if not val.values:
        text = (
            f"The training loss changes from {_loss(first)} to {_loss(last)}. Without a validation"
        )
        return Training.NO_VALIDATION, f"{text} set, overfitting cannot be detected."
    if len(val.values) < MIN_EPOCHS:
        text = f"Too few epochs to tell: the validation loss is known for {len(val.values)}, and "
        return Training.TOO_FEW_EPOCHS, f"{text}a trend needs {MIN_EPOCHS}."
    place, low, end = val.epochs[val.lowest], val.values[val.lowest], val.values[-1]
    if _rises(val):
        # The training loss of that epoch; of the epoch before, if it is unknown.
        then = [loss for epoch, loss in zip(*train, strict=True) if epoch <= place][-1:]
        rise = f"the validation loss is lowest in epoch {place} ({_loss(low)}) and rises to "
        rise += _loss(end)
        if then and last < then[0]:
            fall = f"the training loss keeps falling, from {_loss(then[0])} to {_loss(last)}"
            return Training.OVERFITTING, f"Overfitting: {rise}, while {fall}."
        return Training.UNSTABLE, f"Unstable: {rise}, but the training loss does not fall either."
    if _falls(val):
        text = f"Still improving: the validation loss ends at {_loss(end)}; more epochs would help."
        return Training.STILL_IMPROVING, text
    text = f"No overfitting: the validation loss is lowest in epoch {place} ({_loss(low)})"
    if place == val.epochs[-1]:
        return Training.PLATEAU, f"{text}, the last one, and falls only slightly at the end."
    if end > (1 + MIN_CHANGE) * low + TINY_LOSS:
        return Training.PLATEAU, f"{text} and ends at {_loss(end)}, within its fluctuation."
    return Training.PLATEAU, f"{text} and ends close to it ({_loss(end)})."


def _best_accuracy(history: Mapping[str, Sequence[float]]) -> float | None:
    """Return the highest accuracy in training or validation, if one is known.

    Augmentation and dropout lower the accuracy in training only.
    """
    stages = (_curve(history.get(f"{stage}/accuracy", ())) for stage in ("train", "val"))
    return max((value for curve in stages for value in curve.values), default=None)


def _judge_low_accuracy(accuracy: float, train: Curve) -> tuple[Training, str]:
    """Judge a training whose accuracy is low on its own training images."""
    low = f"the accuracy reaches at most {percent(accuracy)}, in training and in validation"
    if _falls(train):
        text = f"Still improving: {low}, but the training loss still falls"
        return Training.STILL_IMPROVING, f"{text}; more epochs would help."
    text = f"Underfitting: {low}, and the training loss no longer falls ({_loss(train.values[-1])})"
    return Training.UNDERFITTING, f"{text}. A larger network or another learning rate may help."
