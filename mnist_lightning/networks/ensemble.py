"""Ensembles of networks, and test-time augmentation."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnist_lightning.errors import UserError
from mnist_lightning.networks.inspection import ask_blank


class Ensemble(nn.Module):
    """The mean of the probabilities that networks give, as one network.

    Args:
        members: each maps images (B, 1, 28, 28) to logits (B, C) of the same classes.

    Raises:
        UserError: they are of different numbers of classes.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        classes = [ask_blank(member).shape[1] for member in self.members]
        if len(set(classes)) > 1:
            raise UserError(f"networks of {classes} classes are no one model")

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to the logarithms of the mean (B, C)."""
        each = torch.stack([member(images).log_softmax(dim=1) for member in self.members])
        return each.logsumexp(dim=0) - math.log(len(self.members))


class Shifts(nn.Module):
    """The mean of the probabilities that a network gives to an image and its shifted copies.

    One kind of test-time augmentation.

    Args:
        network: maps images (B, 1, 28, 28) to logits (B, C).
        reach: by up to how many pixels the copies are shifted, each way; there are
            (2 reach + 1) squared.
        background: the value of the pixels that a shift uncovers.
    """

    def __init__(self, network: nn.Module, reach: int, background: float) -> None:
        super().__init__()
        self.network = network
        self.reach = reach
        self.background = background

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to the logarithms of the mean (B, C)."""
        reach, size = self.reach, images.shape[-1]
        wide = functional.pad(images, (reach,) * 4, value=self.background)
        views = [
            wide[:, :, top : top + size, left : left + size]
            for top in range(2 * reach + 1)
            for left in range(2 * reach + 1)
        ]
        each = torch.stack([self.network(view).log_softmax(dim=1) for view in views])
        return each.logsumexp(dim=0) - math.log(len(views))
