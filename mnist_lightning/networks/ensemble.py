"""Ensembles of networks, and test-time augmentation."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnist_lightning.errors import UserError
from mnist_lightning.networks.inspection import probe_logits


class Ensemble(nn.Module):
    """Averages the probabilities of several networks, as one network.

    Args:
        members: each maps images (B, 1, 28, 28) to logits (B, C) of the same classes.

    Raises:
        UserError: their numbers of classes differ.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        num_classes = [probe_logits(member).shape[1] for member in self.members]
        if len(set(num_classes)) > 1:
            counts = ", ".join(map(str, num_classes))
            problem = f"the networks of an ensemble have different numbers of classes: {counts}"
            raise UserError(f"{problem}; give networks with the same classes")

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to log-probabilities (B, C)."""
        outputs = torch.stack([member(images).log_softmax(dim=1) for member in self.members])
        return outputs.logsumexp(dim=0) - math.log(len(self.members))


class ShiftAveraging(nn.Module):
    """Averages a network's probabilities over an image and its shifted copies.

    This is a kind of test-time augmentation.

    Args:
        network: maps images (B, 1, 28, 28) to logits (B, C).
        max_shift: maximum shift in pixels, in each direction; there are (2 max_shift + 1) squared
            copies.
        background: value of the pixels that a shift uncovers.
    """

    def __init__(self, network: nn.Module, max_shift: int, background: float) -> None:
        super().__init__()
        self.network = network
        self.max_shift = max_shift
        self.background = background

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to log-probabilities (B, C)."""
        max_shift, size = self.max_shift, images.shape[-1]
        wide = functional.pad(images, (max_shift,) * 4, value=self.background)
        views = [
            wide[:, :, top : top + size, left : left + size]
            for top in range(2 * max_shift + 1)
            for left in range(2 * max_shift + 1)
        ]
        outputs = torch.stack([self.network(view).log_softmax(dim=1) for view in views])
        return outputs.logsumexp(dim=0) - math.log(len(views))
