"""Split the training images into a training set and a validation set."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from mnist_lightning.data.datasets import SOURCES, VAL_SHARE, DigitData


class Split(NamedTuple):
    """A data set, and the indices of its training images for training and for validation."""

    data: DigitData
    train: Tensor
    val: Tensor


def split(count: int, val_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split `count` images: return the indices for training and for validation.

    They are disjoint and ascending, and depend only on the arguments, not on the global generator.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[val_size:].sort().values, order[:val_size].sort().values


def default_val_size(data: DigitData) -> int:
    """Return the default number of validation images of a data set."""
    source = SOURCES.get(data.name)
    return round(len(data.train_labels) * (VAL_SHARE if source is None else source.val_share))


def combine(own: Split, others: Sequence[Split], share: float) -> Split:
    """Train and validate on all data sets, and test on `own`.

    Every training image is used, and repeated as needed so that `share` of them are from `others`.
    """
    parts = [own, *others]
    sizes = [len(part.data.train_labels) for part in parts]
    starts = list(accumulate(sizes, initial=0))[:-1]
    trains = [part.train + start for part, start in zip(parts, starts, strict=True)]
    own_train, extra_train = trains[0], torch.cat(trains[1:])
    ratio = share / (1 - share)
    train = [
        _repeat(own_train, round(len(extra_train) / ratio)),
        _repeat(extra_train, round(len(own_train) * ratio)),
    ]
    return Split(
        replace(
            own.data,
            train_images=torch.cat([part.data.train_images for part in parts]),
            train_labels=torch.cat([part.data.train_labels for part in parts]),
        ),
        torch.cat(train),
        torch.cat([part.val + start for part, start in zip(parts, starts, strict=True)]),
    )


def _repeat(indices: Tensor, min_count: int) -> Tensor:
    """Repeat the indices cyclically until there are at least `min_count`; empty stays empty."""
    if len(indices) == 0:
        return indices
    return indices[torch.arange(max(min_count, len(indices))) % len(indices)]
