"""Metrics as pure functions of numbers and arrays."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]


def confusion(true: Labels, predicted: Labels, classes: int = 10) -> NDArray[np.int64]:
    """Count (C, C) how often each true label (row) was predicted as each label (column).

    Args:
        true: (N,).
        predicted: (N,).
        classes: C.
    """
    counts = np.bincount(true * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes)


def per_class(true: Labels, predicted: Labels, classes: int = 10) -> dict[str, NDArray[Any]]:
    """Compute `precision`, `recall`, `f1` and `support` (C,) of each class; NaN where undefined.

    Args:
        true: (N,).
        predicted: (N,).
        classes: C.
    """
    from sklearn.metrics import precision_recall_fscore_support

    values = precision_recall_fscore_support(
        true, predicted, labels=range(classes), zero_division=np.nan
    )
    return dict(zip(("precision", "recall", "f1", "support"), values, strict=True))


TINY_LOSS = 0.001
MIN_RISE = 0.1  # of the validation loss above its minimum; smaller changes are noise


def overfitting_since(train_loss: Sequence[float], val_loss: Sequence[float]) -> int | None:
    """Return the epoch with the lowest validation loss if the run overfits after it, else None.

    It overfits if the validation loss ends more than a tenth above its minimum, while the training
    loss has fallen since then.

    Args:
        train_loss: of each epoch; NaN where it is not known.
        val_loss: of each epoch.
    """
    pairs = list(zip(train_loss, val_loss, strict=True))
    validated = [place for place, pair in enumerate(pairs) if not np.isnan(pair).any()]
    if not validated or not np.isfinite([pairs[place] for place in validated]).all():
        return None
    best = min(validated, key=lambda place: val_loss[place])
    falls = train_loss[validated[-1]] < train_loss[best]
    losses = [val_loss[place] for place in validated]
    return best + 1 if falls and not ends_near_minimum(losses) else None


def ends_near_minimum(losses: Sequence[float]) -> bool:
    """Return whether the last of several losses is at most a tenth above the lowest one."""
    return len(losses) > 1 and losses[-1] <= (1 + MIN_RISE) * min(losses) + TINY_LOSS


def surest_mistakes(true: Labels, probabilities: Floats) -> NDArray[np.int64]:
    """Find the misclassified samples, the most confident first.

    Args:
        true: (N,).
        probabilities: (N, C).

    Returns:
        (M,) indices.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != true)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]


def closest_calls(true: Labels, probabilities: Floats) -> NDArray[np.int64]:
    """Find the correct samples, the smallest margin to the second label first.

    Args:
        true: (N,).
        probabilities: (N, C).

    Returns:
        (M,) indices.
    """
    correct = np.flatnonzero(probabilities.argmax(axis=1) == true)
    top_two = np.sort(probabilities[correct], axis=1)[:, -2:]
    return correct[np.argsort(top_two[:, 1] - top_two[:, 0], kind="stable")]


class Calibration(NamedTuple):
    """Confidence and accuracy, in bins of confidence of equal width.

    Attributes:
        edges: (B + 1,) of the bins; a bin includes its upper edge, not its lower one.
        support: (B,) samples in each bin.
        confidence: (B,) the mean confidence; NaN in an empty bin.
        accuracy: (B,) the correct share; NaN in an empty bin.
        error: expected calibration error: the mean distance of the two, weighted by `support`.
    """

    edges: Floats
    support: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats
    error: float


def calibration(confidence: Floats, correct: NDArray[np.bool_], bins: int = 15) -> Calibration:
    """Compare confidence with accuracy (Guo et al., "On calibration of modern neural networks").

    Args:
        confidence: (N,) the probability of the predicted label, in (0, 1].
        correct: (N,) whether the predicted label is correct.
        bins: B. The last one includes a confidence of 1; torchmetrics 1.9 has a separate bin for
            it.
    """
    edges = np.linspace(0, 1, bins + 1)
    indices = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(indices, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(indices, confidence, minlength=bins) / count
        accuracy = np.bincount(indices, correct, minlength=bins) / count
    distance = np.abs(accuracy - mean)[count > 0]
    error = float(distance @ count[count > 0] / len(confidence))
    return Calibration(edges, count, mean, accuracy, error)
