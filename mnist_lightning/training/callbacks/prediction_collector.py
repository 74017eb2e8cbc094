"""Collect the predictions of a validation or a test."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from mnist_lightning import distributed
from mnist_lightning.runs.predictions_csv import PredictionsTable


class PredictionCollector(Callback):
    """Collects the predictions of the last validation or test for each sample."""

    def __init__(self) -> None:
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Delete earlier predictions."""
        self._logits, self._labels = [], []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Store a batch's logits (`outputs`) and labels."""
        self._logits.append(outputs)
        self._labels.append(batch[1])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the predictions of all processes: for each batch, its parts by rank."""
        for tensors in (self._logits, self._labels) if distributed.world_size() > 1 else ():
            by_rank = distributed.all_gather([tensor.cpu() for tensor in tensors])
            tensors[:] = [part for parts in zip(*by_rank, strict=True) for part in parts]

    on_test_start = on_validation_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end

    def table(self) -> PredictionsTable:
        """Return labels and probabilities, in the order of the images."""
        logits, labels = torch.cat(self._logits).float().cpu(), torch.cat(self._labels).cpu()
        predicted, probabilities = logits.argmax(dim=1), logits.softmax(dim=1)
        return PredictionsTable(labels.numpy(), predicted.numpy(), probabilities.numpy())

    @property
    def total(self) -> int:
        """The number of images."""
        return sum(len(labels) for labels in self._labels)
