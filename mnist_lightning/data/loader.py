"""Batches from tensors in memory, in an order that depends only on (seed, epoch)."""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Sampler

from mnist_lightning import distributed, posix
from mnist_lightning.data.augmentations import Augmentation, Mixture
from mnist_lightning.preprocessing.normalization import normalize

Batch = tuple[Tensor, Tensor]
SAMPLES_PER_GATHER = 8192  # 6 MB


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """Return the order (count,) of the samples in an epoch, on the CPU."""
    return torch.randperm(count, generator=_generator(seed, epoch))


def _generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator whose numbers depend only on `key`."""
    # SeedSequence maps similar keys to unrelated seeds; the result fits into 64 bits.
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(seed)


@dataclass(eq=False)
class BatchDataset(Dataset[Batch]):
    """The batches of every epoch, addressed by (epoch, index).

    A batch depends only on its address: every process computes the same batch.

    Args:
        images: (N, 28, 28) uint8.
        labels: (N,) int64, on the same device.
        batch_size: samples in a batch; the last one of an epoch may be smaller.
        seed: shuffles each epoch differently; None: the samples stay in their order.
        augment: applied in order to the images of each batch of a shuffled epoch.

    With several processes, each gets its share of every batch. The number of processes does not
    change a batch.
    """

    images: Tensor
    labels: Tensor
    batch_size: int
    seed: int | None
    augment: Sequence[Augmentation] = ()

    def __post_init__(self) -> None:
        self.num_classes = 1 + int(self.labels.max()) if len(self.labels) > 0 else 0
        self._order: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return -(-len(self.labels) // self.batch_size)

    def __getitem__(self, address: tuple[int, int]) -> Batch:
        """Return normalized images (B, 1, 28, 28) float32 and labels (B,) of one batch.

        If one of the augmentations is a `Mixture`, probabilities (B, C) replace the labels.
        """
        epoch, index = address
        return next(self.batches(epoch, index, index + 1))

    def batches(self, epoch: int, first: int = 0, end: int | None = None) -> Iterator[Batch]:
        """Yield the batches of an epoch from `first` up to `end`; by default all of them.

        Many batches are gathered at once and then sliced: this takes a third of the time.
        """
        size = self.batch_size
        step = max(1, SAMPLES_PER_GATHER // size)
        end = len(self) if end is None else end
        for start in range(first, end, step):
            pixels, labels = self._samples(epoch, start * size, min(start + step, end) * size)
            for index, offset in enumerate(range(0, len(labels), size), start):
                batch = pixels[offset : offset + size], labels[offset : offset + size]
                yield self._prepare(batch, epoch, index)

    def _prepare(self, batch: Batch, epoch: int, index: int) -> Batch:
        pixels, labels = batch
        own = distributed.rank_slice(len(labels))
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
        # index_select on rows copies each image as one block; indexing 2-D images does not.
        pixels = self.images.flatten(1).index_select(0, order)
        return pixels.view(-1, *self.images.shape[1:]), self.labels.index_select(0, order)

    def _epoch_order(self, seed: int, epoch: int) -> Tensor:
        if self._order is None or self._order[0] != epoch:
            order = epoch_order(len(self.labels), seed, epoch).to(self.labels.device)
            self._order = epoch, order
        return self._order[1]


@dataclass(eq=False)
class EpochSampler(Sampler[tuple[int, int]]):
    """Yields the addresses of the batches of the current epoch, from `start` on."""

    length: int
    epoch: int = 0
    start: int = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in range(self.start, self.length))


SECONDS_TO_SAVE = 10


def _ignore_signals(worker: int) -> None:
    """Ignore signals that a terminal (Ctrl-C) or a cluster (SIGTERM) also sends to workers.

    The main process needs its workers until the step at which it saves. It stops them itself, by
    SIGTERM if it has no time left: therefore they ignore SIGTERM only for SECONDS_TO_SAVE.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: posix.end_process_after(SECONDS_TO_SAVE))


class BatchLoader:
    """Iterates over the batches of an epoch; the number of workers does not change them.

    Its state is a position in an epoch: the next iteration over that epoch continues there.
    Lightning stores the state in its checkpoints.

    Args:
        dataset: the source of the batches.
        num_workers: processes that prepare batches; 0: the main process does, which is fastest for
            data in memory.
        pin_memory: use page-locked memory for the batches (for a GPU).
    """

    batch_sampler = None  # Lightning expects this attribute beside `sampler`

    def __init__(
        self, dataset: BatchDataset, num_workers: int = 0, pin_memory: bool = False
    ) -> None:
        self.dataset = dataset
        self.sampler = EpochSampler(len(dataset))
        self._num_yielded = 0  # batches of this epoch so far
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
                # iter() draws a seed: a separate generator leaves the global one unchanged.
                generator=torch.Generator(),
                worker_init_fn=_ignore_signals,
            )

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        # A generator function runs only when the first batch is requested: Lightning calls iter()
        # before it sets the epoch.
        resumed, self._resumed = self._resumed, None
        same_epoch = resumed is not None and resumed["epoch"] == self.sampler.epoch
        self._num_yielded = self.sampler.start = resumed["given"] if resumed and same_epoch else 0
        for batch in self._workers or self.dataset.batches(self.sampler.epoch, self._num_yielded):
            self._num_yielded += 1
            yield batch

    def close(self) -> None:
        """Stop the workers now; at the end of the program this would take seconds."""
        self._workers = None

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of its batches that were yielded."""
        return {"epoch": self.sampler.epoch, "given": self._num_yielded}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue at this position of its epoch; other epochs start at their first batch."""
        self._resumed = state_dict
