"""Batches from tensors in memory, in an order that depends only on (seed, epoch)."""

import signal
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Sampler

from mnist_lightning import distributed
from mnist_lightning.data.augmentations import Augmentation, Mixture
from mnist_lightning.preprocessing.mnist_format import normalize

Batch = tuple[Tensor, Tensor]
GATHERED = 8192  # samples at once: 6 MB


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order (count,) in which an epoch sees its samples, on the CPU."""
    return torch.randperm(count, generator=_generator(seed, epoch))


def _generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose numbers are a function of `key`."""
    # SeedSequence spreads neighboring keys over all seeds; the result fits 64 bits.
    mixed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(mixed)


class BatchDataset(Dataset[Batch]):
    """The batches of every epoch, addressed by (epoch, index).

    A batch hangs on nothing but its address, so that whichever process makes it makes the same.

    Args:
        images: (N, 28, 28) uint8.
        labels: (N,) int64, on the same device.
        batch_size: samples in a batch; the last one of an epoch may be smaller.
        seed: shuffles each epoch anew; None keeps the samples in their order.
        augment: what is done to the images of each batch of a shuffled epoch, one after another.

    Of several processes each gets its share of every batch; a batch is the same for any number.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        seed: int | None,
        augment: Sequence[Augmentation] = (),
    ) -> None:
        self.images = images
        self.labels = labels
        self.batch_size = batch_size
        self.seed = seed
        self.augment = augment
        self.num_classes = 1 + int(labels.max()) if len(labels) > 0 else 0
        self._order: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return -(-len(self.labels) // self.batch_size)

    def __getitem__(self, address: tuple[int, int]) -> Batch:
        """Return normalized images (B, 1, 28, 28) float32 and labels (B,) of one batch.

        Where a `Mixture` is among the augmentations: probabilities (B, C) in place of labels.
        """
        epoch, index = address
        return next(self.batches(epoch, index, index + 1))

    def batches(self, epoch: int, first: int = 0, end: int | None = None) -> Iterator[Batch]:
        """Yield the batches of an epoch from `first` up to `end`; all of them by default.

        Many batches are gathered at once, and then only cut: that takes a third of the time.
        """
        size = self.batch_size
        stretch = max(1, GATHERED // size)
        end = len(self) if end is None else end
        for start in range(first, end, stretch):
            pixels, labels = self._samples(epoch, start * size, min(start + stretch, end) * size)
            for index, place in enumerate(range(0, len(labels), size), start):
                batch = pixels[place : place + size], labels[place : place + size]
                yield self._finished(batch, epoch, index)

    def _finished(self, batch: Batch, epoch: int, index: int) -> Batch:
        pixels, labels = batch
        own = distributed.share(len(labels))
        if not self.augment or self.seed is None:
            return normalize(pixels[own]), labels[own]
        images = normalize(pixels)
        generator = _generator(self.seed, epoch, index, device=images.device)
        for augmentation in self.augment:
            if isinstance(augmentation, Mixture):
                if labels.ndim == 1:
                    labels = functional.one_hot(labels, self.num_classes).to(images.dtype)
                images, labels = augmentation.mix(images, labels, generator)
            else:
                images = augmentation(images, generator)
        return images[own], labels[own]

    def _samples(self, epoch: int, start: int, end: int) -> Batch:
        if self.seed is None:
            return self.images[start:end], self.labels[start:end]
        order = self._epoch_order(self.seed, epoch)[start:end]
        # A row is copied as a whole, which indexing pictures of two dimensions does not do.
        pixels = self.images.flatten(1).index_select(0, order)
        return pixels.view(-1, *self.images.shape[1:]), self.labels.index_select(0, order)

    def _epoch_order(self, seed: int, epoch: int) -> Tensor:
        if self._order is None or self._order[0] != epoch:
            order = epoch_order(len(self.labels), seed, epoch).to(self.labels.device)
            self._order = epoch, order
        return self._order[1]


class EpochSampler(Sampler[tuple[int, int]]):
    """The addresses of the batches of the epoch that was set last, from `start` on."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in range(self.start, self.length))


SECONDS_TO_SAVE = 10


def _leave_signals_to_the_main_process(worker: int) -> None:
    """Outlive what a terminal (Ctrl-C) or a cluster (SIGTERM) sends to workers too.

    Without them the main process could not come to the step that it saves at. It ends them itself,
    by a SIGTERM where it has no time for better: so they outlive that one only for a while.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(SECONDS_TO_SAVE))


class BatchLoader:
    """Iterates over the batches of an epoch; the same ones for any number of workers.

    Its state is a place in an epoch. Loaded, the next iteration over that epoch goes on there;
    Lightning keeps it in its checkpoints.

    Args:
        dataset: where the batches come from.
        num_workers: processes that make batches; 0 makes them here, which is fastest for data
            in memory.
        pin_memory: hand batches over in page-locked memory (for a GPU).
    """

    batch_sampler = None  # Lightning looks for one wherever it finds a sampler

    def __init__(
        self, dataset: BatchDataset, num_workers: int = 0, pin_memory: bool = False
    ) -> None:
        self.dataset = dataset
        self.sampler = EpochSampler(len(dataset))
        self._given = 0  # batches of the epoch that were handed out
        self._resumed: dict[str, int] | None = None
        self._workers: DataLoader[Batch] | None = None
        if num_workers > 0 or pin_memory:
            self._workers = DataLoader(
                dataset,
                batch_size=None,
                sampler=self.sampler,
                num_workers=num_workers,
                pin_memory=pin_memory,
                persistent_workers=num_workers > 0,
                # Each iter() draws a seed: not from the generator that dropout draws from.
                generator=torch.Generator(),
                worker_init_fn=_leave_signals_to_the_main_process,
            )

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        # A generator function, so that nothing happens before the first batch is asked for:
        # Lightning calls iter() before it sets the epoch.
        resumed, self._resumed = self._resumed, None
        same_epoch = resumed is not None and resumed["epoch"] == self.sampler.epoch
        self._given = self.sampler.start = resumed["given"] if resumed and same_epoch else 0
        for batch in self._workers or self.dataset.batches(self.sampler.epoch, self._given):
            self._given += 1
            yield batch

    def close(self) -> None:
        """End the workers now; at the end of the program it would take them seconds."""
        self._workers = None

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how many of its batches were handed out."""
        return {"epoch": self.sampler.epoch, "given": self._given}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on there, once that epoch is iterated over; any other begins at its beginning."""
        self._resumed = state_dict
