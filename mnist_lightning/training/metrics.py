"""The loss and the accuracy of an epoch, which a checkpoint can hold."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from mnist_lightning import distributed

COUNTED = 64  # batches at once: half the time


class LossAndAccuracy(Metric):
    """Mean loss and accuracy over all the samples of an epoch, whatever the batch sizes.

    The sums stay tensors on the device until `compute`; they are part of a checkpoint, so that
    an epoch that was interrupted and resumed has its whole mean.
    """

    full_state_update = False
    loss: Tensor
    correct: Tensor
    total: Tensor
    logits: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__(distributed_available_fn=lambda: distributed.count() > 1)
        zero = torch.zeros((), dtype=torch.int64)
        self.add_state("loss", torch.zeros(()), dist_reduce_fx="sum", persistent=True)
        self.add_state("correct", zero, dist_reduce_fx="sum", persistent=True)
        self.add_state("total", zero.clone(), dist_reduce_fx="sum", persistent=True)
        self.logits, self.labels = [], []  # of the batches that are not counted yet

    def _apply(
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ""
    ) -> nn.Module:
        """Move with the network, but keep the sums exact whatever its precision.

        Not by way of the network's precision, which would round the sums of a checkpoint.
        """
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), exclude_state)

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss (), its logits (B, C) and its labels (B,).

        Of labels that are probabilities (B, C) the likeliest counts.
        """
        labels = labels if labels.ndim == 1 else labels.argmax(dim=1)
        self.loss.add_(loss, alpha=len(labels))
        self.logits.append(logits)
        self.labels.append(labels)
        if len(self.labels) == COUNTED:
            self._count()

    def _count(self) -> None:
        if len(self.labels) > 0:
            logits, labels = dim_zero_cat(self.logits), dim_zero_cat(self.labels)
            self.correct.add_((logits.argmax(dim=1) == labels).sum())
            self.total.add_(len(labels))
            self.logits, self.labels = [], []

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Add up the sums of all processes, all batches counted."""
        self._count()
        super().sync(*args, **kwargs)

    def reset(self) -> None:
        """Begin anew."""
        super().reset()
        self.logits, self.labels = [], []

    def compute(self) -> dict[str, Tensor]:
        """Return `loss` and `accuracy` (in [0, 1])."""
        self._count()
        return {"loss": self.loss / self.total, "accuracy": self.correct / self.total}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override] # torch's
        """Return the sums, all batches counted."""
        self._count()
        return super().state_dict(*args, **kwargs)
