"""Batches from tensors, also memory-mapped, in an order that depends only on (seed, epoch)."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import starmap
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, DistributedSampler, SequentialSampler

from mnist_lightning import distributed, posix
from mnist_lightning.data.augmentations import Augmentation, Mixture
from mnist_lightning.preprocessing.normalization import normalize

Batch = tuple[Tensor, Tensor]
BatchAddress = tuple[int, int]  # the epoch, and the index of the batch in it
SAMPLES_PER_GATHER = 8192  # 6 MB
LARGE = 250_000_000  # bytes of images; the system keeps smaller files in memory


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """Return the order (count,) of the samples in an epoch, on the CPU."""
    return torch.randperm(count, generator=_generator(seed, epoch))


def _generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator whose numbers depend only on `key`."""
    # SeedSequence maps similar keys to unrelated seeds; the result fits into 64 bits.
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(seed)


@dataclass(eq=False)
class BatchDataset(Dataset[Any]):
    """The samples of a data set, and the batches of every epoch.

    `dataset[i]` is a sample. `dataset[epoch, i]` is a batch, which depends only on this address:
    every process computes the same batch.

    Args:
        images: (M, 28, 28) uint8; they may be memory-mapped and larger than the memory.
        labels: (N,) int64, on the same device.
        batch_size: samples in a batch; the last one of an epoch may be smaller.
        seed: shuffles each epoch differently; None: the samples stay in their order.
        augment: applied in order to the images of each batch of a shuffled epoch.
        repeat: use the batches of the first epoch in every epoch.
        rows: (N,) int64, the index of each sample's image; None: 0 to N - 1.

    With several processes, each gets its share of every batch. The number of processes does not
    change a batch.
    """

    images: Tensor
    labels: Tensor
    batch_size: int
    seed: int | None
    augment: Sequence[Augmentation] = ()
    repeat: bool = False
    rows: Tensor | None = None

    def __post_init__(self) -> None:
        self.num_classes = 1 + int(self.labels.max()) if len(self.labels) > 0 else 0
        self._order: tuple[int, Tensor] | None = None
        self._is_large = self.images.numel() > LARGE and self.images.device.type == "cpu"
        if self._is_large:
            posix.expect_random_access(self.images.data_ptr(), self.images.numel())

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.labels)

    @property
    def num_batches(self) -> int:
        """The number of batches of an epoch."""
        return -(-len(self.labels) // self.batch_size)

    @overload
    def __getitem__(self, address: int) -> tuple[Tensor, int]: ...
    @overload
    def __getitem__(self, address: BatchAddress) -> Batch: ...
    def __getitem__(self, address: int | BatchAddress) -> tuple[Tensor, int] | Batch:
        """Return a sample or a batch.

        Args:
            address: an index, for the normalized image (1, 28, 28) float32 and the label of a
                sample in the original order, without augmentation. Or (epoch, index), for the
                images (B, 1, 28, 28) and labels (B,) of a batch. If one of the augmentations is a
                `Mixture`, probabilities (B, C) replace the labels.
        """
        if isinstance(address, tuple):
            epoch, index = address
            return next(self.batches(epoch, index, index + 1))
        row = address if self.rows is None else int(self.rows[address])
        return normalize(self.images[row].unsqueeze(0))[0], int(self.labels[address])

    def batches(self, epoch: int, first: int = 0, end: int | None = None) -> Iterator[Batch]:
        """Yield the batches of an epoch from `first` up to `end`; by default all of them.

        Many batches are gathered at once and then sliced: this takes a third of the time.
        """
        epoch = 0 if self.repeat else epoch
        size = self.batch_size
        step = max(1, SAMPLES_PER_GATHER // size)
        end = self.num_batches if end is None else end
        starts = range(first, end, step)
        parts = [(epoch, start * size, min(start + step, end) * size) for start in starts]
        read = self._read_ahead(parts) if self._is_large else starmap(self._samples, parts)
        for start, (pixels, labels) in zip(starts, read, strict=True):
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
        if self.seed is None and self.rows is None:
            return self.images[start:end], self.labels[start:end]
        samples, rows = self._addresses(epoch, start, end)
        # index_select on rows copies each image as one block; indexing 2-D images does not.
        pixels = self.images.flatten(1).index_select(0, rows)
        return pixels.view(-1, *self.images.shape[1:]), self.labels[samples]

    def _addresses(self, epoch: int, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Return the samples in a part of an epoch, and the indices of their images."""
        if self.seed is None:
            samples = torch.arange(start, min(end, len(self)), device=self.labels.device)
        else:
            samples = self._epoch_order(self.seed, epoch)[start:end]
        return samples, samples if self.rows is None else self.rows[samples]

    def _read_ahead(self, parts: Iterable[tuple[int, int, int]]) -> Iterator[Batch]:
        """Yield the samples of parts of epochs; read the next one while the network trains."""
        with ThreadPoolExecutor(1) as reader:
            reading: list[Future[Batch]] = []
            for part in parts:
                reading.append(reader.submit(self._read_from_disk, *part))
                if len(reading) > 1:
                    yield reading.pop(0).result()
            yield from (future.result() for future in reading)

    def _read_from_disk(self, epoch: int, start: int, end: int) -> Batch:
        """Request all images at once, then read them: one by one takes five times as long."""
        rows = self._addresses(epoch, start, end)[1].sort().values
        size = self.images[0].numel()
        addresses = self.images.data_ptr() + size * rows.numpy()
        posix.prefetch(np.stack([addresses, np.full_like(addresses, size)], 1).astype(np.uint64))
        return self._samples(epoch, start, end)

    def _epoch_order(self, seed: int, epoch: int) -> Tensor:
        if self._order is None or self._order[0] != epoch:
            order = epoch_order(len(self.labels), seed, epoch).to(self.labels.device)
            self._order = epoch, order
        return self._order[1]


class EpochSampler(SequentialSampler, DistributedSampler[Any]):
    """Yields the addresses of the batches of the current epoch, from `start` on.

    Lightning replaces a sampler that is not a DistributedSampler if there are several processes,
    and one that is not a SequentialSampler for `overfit_batches`. This one needs no replacement:
    each process gets its share of every batch, and `BatchDataset` shuffles.
    """

    def __init__(self, length: int) -> None:
        self.length, self.epoch, self.start = length, 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[BatchAddress]:  # type: ignore[override] # see BatchDataset
        return ((self.epoch, index) for index in range(self.start, self.length))


SECONDS_TO_SAVE = 10


def _ignore_signals(worker: int) -> None:
    """Ignore signals that a terminal (Ctrl-C) or a cluster (SIGTERM) also sends to workers.

    The main process needs its workers until the step at which it saves. It stops them itself, by
    SIGTERM if it has no time left: therefore they ignore SIGTERM only for SECONDS_TO_SAVE.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: posix.end_process_after(SECONDS_TO_SAVE))


class BatchLoader(DataLoader[Any]):
    """Iterates over the batches of an epoch; the number of workers does not change them.

    Its state is a position in an epoch: the next iteration over that epoch continues there.
    Lightning stores the state in its checkpoints.

    Args:
        dataset: the source of the batches.
        num_workers: processes that prepare batches; 0: the main process does, which is fastest for
            data in memory.
        pin_memory: use page-locked memory for the batches (for a GPU).
    """

    dataset: BatchDataset
    sampler: EpochSampler

    def __init__(
        self, dataset: BatchDataset, num_workers: int = 0, pin_memory: bool = False
    ) -> None:
        super().__init__(
            dataset,
            batch_size=None,
            sampler=EpochSampler(dataset.num_batches),
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            # iter() draws a seed: a separate generator leaves the global one unchanged.
            generator=torch.Generator(),
            worker_init_fn=_ignore_signals,
        )
        self._num_yielded = 0  # batches of this epoch so far
        self._resumed: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override] # torch's type is a private one
        # A generator function runs only when the first batch is requested: Lightning calls iter()
        # before it sets the epoch.
        resumed, self._resumed = self._resumed, None
        same_epoch = resumed is not None and resumed["epoch"] == self.sampler.epoch
        self._num_yielded = self.sampler.start = resumed["given"] if resumed and same_epoch else 0
        # In one process, torch's loader is slower: it gathers each batch alone.
        is_plain = self.num_workers == 0 and not self.pin_memory
        batches = self.dataset.batches(self.sampler.epoch, self._num_yielded)
        for batch in batches if is_plain else super().__iter__():
            self._num_yielded += 1
            yield batch

    def close(self) -> None:
        """Stop the workers now; at the end of the program this would take seconds."""
        self._iterator = None

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of its batches that were yielded."""
        return {"epoch": self.sampler.epoch, "given": self._num_yielded}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue at this position of its epoch; other epochs start at their first batch."""
        self._resumed = state_dict
