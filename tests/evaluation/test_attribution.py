"""Maps of what matters point at what matters."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnist_lightning.evaluation.attribution import occlusion, saliency


class LooksAtACorner(nn.Module):
    """Says 1 if there is ink in the corner at the upper left."""

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) images to (B, 2) logits."""
        ink = images[:, 0, 2:6, 2:6].sum(dim=(1, 2))
        return torch.stack([torch.zeros_like(ink), ink], dim=1)


def test_saliency_is_where_the_network_looks() -> None:
    (found,) = saliency(LooksAtACorner(), torch.ones(1, 1, 28, 28))
    expected = np.zeros((28, 28))
    expected[2:6, 2:6] = 1
    assert np.array_equal(found, expected)


def test_occlusion_is_high_where_covering_costs_the_label() -> None:
    def ask(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        sure = (images[:, 2:6, 2:6].max(axis=(1, 2)) > 0) * 0.9 + 0.05
        return np.stack([1 - sure, sure], axis=1)

    images = np.full((2, 28, 28), 255, np.uint8)
    images[1, 2:6, 2:6] = 0  # read as 0 whatever is covered
    first, second = occlusion(ask, images)
    assert second.max() == 0
    # One square of those that cover a pixel hides all of the corner, and takes 0.9 away: of the
    # squares over (2, 2) there are 4, of those over (4, 4) nine.
    assert (first[2, 2], first[4, 4]) == pytest.approx((0.9 / 4, 0.9 / 9))
    assert first[10:, 10:].max() == 0
    assert first.max() <= 0.9
