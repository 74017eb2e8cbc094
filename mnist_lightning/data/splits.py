"""Split the training images into a training set and a validation set."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from mnist_lightning.data.datasets import SOURCES, VAL_SHARE, DigitData


class Division(NamedTuple):
    """A data set, and the places of its training images that train and that are held out."""

    data: DigitData
    train: Tensor
    held_out: Tensor


def split(count: int, val_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the validation images among the `count` training images.

    Disjoint, each ascending; a function of the arguments alone, by a generator of its own.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[val_size:].sort().values, order[:val_size].sort().values


def usual_val_size(data: DigitData) -> int:
    """How many images are held out of a data set unless something else is said."""
    source = SOURCES.get(data.name)
    return round(len(data.train_labels) * (VAL_SHARE if source is None else source.val_share))


def divide(data: DigitData, val_size: int, seed: int) -> Division:
    """Hold `val_size` images out, or all where there are fewer."""
    count = len(data.train_labels)
    return Division(data, *split(count, min(val_size, count), seed))


def joined(own: Division, others: Sequence[Division], share: float) -> Division:
    """Train on and hold out of all, and test on one's own.

    Each image trains, and so many times that the others' share of all holds.
    """
    everything = [own, *others]
    sizes = [len(each.data.train_labels) for each in everything]
    starts = list(accumulate(sizes, initial=0))[:-1]
    trains = [each.train + start for each, start in zip(everything, starts, strict=True)]
    mine, theirs = trains[0], torch.cat(trains[1:])
    ratio = share / (1 - share)
    train = [
        _repeated(mine, round(len(theirs) / ratio)),
        _repeated(theirs, round(len(mine) * ratio)),
    ]
    return Division(
        replace(
            own.data,
            train_images=torch.cat([each.data.train_images for each in everything]),
            train_labels=torch.cat([each.data.train_labels for each in everything]),
        ),
        torch.cat(train),
        torch.cat([each.held_out + start for each, start in zip(everything, starts, strict=True)]),
    )


def _repeated(indices: Tensor, least: int) -> Tensor:
    """All indices, from the first on again until there are at least so many; none of none."""
    if len(indices) == 0:
        return indices
    return indices[torch.arange(max(least, len(indices))) % len(indices)]
