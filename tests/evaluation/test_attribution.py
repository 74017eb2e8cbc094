"""Attribution maps show the pixels that a prediction depends on."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnist_lightning.evaluation.attribution import occlusion, saliency


class CornerNetwork(nn.Module):
    """Predicts 1 if there is ink in the upper left corner."""

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) images to (B, 2) logits."""
        ink = images[:, 0, 2:6, 2:6].sum(dim=(1, 2))
        return torch.stack([torch.zeros_like(ink), ink], dim=1)


def test_saliency_marks_the_pixels_that_the_network_uses() -> None:
    (saliency_map,) = saliency(CornerNetwork(), torch.ones(1, 1, 28, 28))
    expected = np.zeros((28, 28))
    expected[2:6, 2:6] = 1
    assert np.array_equal(saliency_map, expected)


def test_occlusion_is_high_where_covering_reduces_the_probability() -> None:
    def predict(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        probability = (images[:, 2:6, 2:6].max(axis=(1, 2)) > 0) * 0.9 + 0.05
        return np.stack([1 - probability, probability], axis=1)

    images = np.full((2, 28, 28), 255, np.uint8)
    images[1, 2:6, 2:6] = 0  # predicted as 0, whatever is covered
    first, second = occlusion(predict, images)
    assert second.max() == 0
    # Of the squares that cover a pixel, one covers the whole corner and reduces the probability by
    # 0.9. There are 4 squares over (2, 2), and 9 over (4, 4).
    assert (first[2, 2], first[4, 4]) == pytest.approx((0.9 / 4, 0.9 / 9))
    assert first[10:, 10:].max() == 0
    assert first.max() <= 0.9
