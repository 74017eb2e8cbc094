"""Normalization: the only owner of MNIST's mean and standard deviation."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes a second to import, and the constants do not need it
    from torch import Tensor

# Of the 60,000 training images scaled to [0, 1].
MEAN, STD = 0.1307, 0.3081
PAPER = -MEAN / STD  # the normalized value of paper


def normalize(pixels: "Tensor") -> "Tensor":
    """Map (B, 28, 28) uint8 images to normalized (B, 1, 28, 28) float32, the input of networks."""
    return pixels.unsqueeze(1).float().sub_(255 * MEAN).div_(255 * STD)
