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
    """How much the winning logit changes with each pixel, as maps (B, 28, 28) of magnitudes.

    The gradient of Simonyan, Vedaldi and Zisserman ("Deep inside convolutional networks", 2013).

    Args:
        network: in evaluation.
        images: (B, 1, 28, 28), normalized.
    """
    images = images.clone().requires_grad_()
    logits = network(images)
    (gradient,) = torch.autograd.grad(logits.max(dim=1).values.sum(), images)
    maps: Maps = gradient[:, 0].abs().float().cpu().numpy()
    return maps


def occlusion(ask: Callable[[NDArray[np.uint8]], Maps], images: NDArray[np.uint8]) -> Maps:
    """How much probability the label loses when a square of paper covers the place.

    The occlusion of Zeiler and Fergus ("Visualizing and understanding convolutional networks",
    2013), as maps (N, 28, 28): a pixel has the mean over the squares that cover it, at least 0.

    Args:
        ask: maps pictures (M, 28, 28) to probabilities (M, C).
        images: (N, 28, 28), 0 for paper.
    """
    count, size = images.shape[:2]
    whole = ask(images)
    labels = whole.argmax(axis=1)
    starts = range(0, size - PATCH + 1, STRIDE)
    places = [
        (slice(top, top + PATCH), slice(left, left + PATCH)) for top in starts for left in starts
    ]
    covered = images[:, None].repeat(len(places), axis=1)
    for index, place in enumerate(places):
        covered[:, index, *place] = 0
    asked = ask(covered.reshape(-1, size, size)).reshape(count, len(places), -1)
    lost, times = np.zeros((count, size, size)), np.zeros((size, size))
    for index, place in enumerate(places):
        drop = whole[range(count), labels] - asked[range(count), index, labels]
        lost[:, *place] += drop[:, None, None]
        times[place] += 1
    return np.maximum(lost / np.maximum(times, 1), 0)
