"""Attribution maps: which pixels of an image a prediction depends on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Maps = NDArray[np.floating[Any]]
PATCH, STRIDE = 5, 2


def saliency(network: nn.Module, images: Tensor) -> Maps:
    """Compute how much the largest logit changes with each pixel, as maps (B, 28, 28).

    The gradient of Simonyan, Vedaldi and Zisserman ("Deep inside convolutional networks", 2013).

    Args:
        network: in evaluation mode.
        images: (B, 1, 28, 28), normalized.
    """
    images = images.clone().requires_grad_()
    logits = network(images)
    (gradient,) = torch.autograd.grad(logits.max(dim=1).values.sum(), images)
    return np.asarray(gradient[:, 0].abs().float().cpu())


def occlusion(predict: Callable[[NDArray[np.uint8]], Maps], images: NDArray[np.uint8]) -> Maps:
    """Compute how much a square of paper over each place reduces the probability of the label.

    The occlusion of Zeiler and Fergus ("Visualizing and understanding convolutional networks",
    2013), as maps (N, 28, 28): each pixel is the mean over the squares that cover it, at least 0.

    Args:
        predict: maps images (M, 28, 28) to probabilities (M, C).
        images: (N, 28, 28), 0 for paper.
    """
    count, size = images.shape[:2]
    original = predict(images)
    labels = original.argmax(axis=1)
    starts = range(0, size - PATCH + 1, STRIDE)
    places = [
        (slice(top, top + PATCH), slice(left, left + PATCH)) for top in starts for left in starts
    ]
    covered = images[:, None].repeat(len(places), axis=1)
    for index, place in enumerate(places):
        covered[:, index, *place] = 0
    occluded = predict(covered.reshape(-1, size, size)).reshape(count, len(places), -1)
    drops, times = np.zeros((count, size, size)), np.zeros((size, size))
    for index, place in enumerate(places):
        drop = original[range(count), labels] - occluded[range(count), index, labels]
        drops[:, *place] += drop[:, None, None]
        times[place] += 1
    return np.maximum(drops / np.maximum(times, 1), 0)
