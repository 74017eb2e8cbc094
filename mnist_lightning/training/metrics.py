"""The loss and the accuracy of an epoch, as part of a checkpoint."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from mnist_lightning import distributed

BATCHES_PER_COUNT = 64  # counting many batches at once takes half the time


class LossAndAccuracy(Metric):
    """Mean loss and accuracy over all samples of an epoch, independent of the batch sizes.

    The sums are tensors on the device until `compute`. They are part of a checkpoint: the means of
    an interrupted and resumed epoch include all its samples.
    """

    full_state_update = False
    loss: Tensor
    correct: Tensor
    total: Tensor
    logits: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__(distributed_available_fn=distributed.is_distributed)
        zero = torch.zeros((), dtype=torch.int64)
        self.add_state("loss", torch.zeros(()), dist_reduce_fx="sum", persistent=True)
        self.add_state("correct", zero, dist_reduce_fx="sum", persistent=True)
        self.add_state("total", zero.clone(), dist_reduce_fx="sum", persistent=True)
        self.logits, self.labels = [], []  # of batches that are not counted yet

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Any = "") -> nn.Module:
        """Move to the network's device, but not to its precision.

        That would round the sums, also those of a checkpoint.
        """
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), exclude_state)

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss (), its logits (B, C) and its labels (B,).

        If the labels are probabilities (B, C), the most probable class counts.
        """
        labels = labels if labels.ndim == 1 else labels.argmax(dim=1)
        self.loss.add_(loss, alpha=len(labels))
        self.logits.append(logits)
        self.labels.append(labels)
        if len(self.labels) == BATCHES_PER_COUNT:
            self._count()

    def _count(self) -> None:
        if len(self.labels) > 0:
            logits, labels = dim_zero_cat(self.logits), dim_zero_cat(self.labels)
            self.correct.add_((logits.argmax(dim=1) == labels).sum())
            self.total.add_(len(labels))
            self.logits, self.labels = [], []

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Count all batches, and add up the sums of all processes."""
        self._count()
        super().sync(*args, **kwargs)

    def reset(self) -> None:
        """Set the sums to zero."""
        super().reset()
        self.logits, self.labels = [], []

    def compute(self) -> dict[str, Tensor]:
        """Return `loss` and `accuracy` (in [0, 1])."""
        return self.means_so_far()

    def means_so_far(self) -> dict[str, Tensor]:
        """Return the means over the samples that this process has seen; call no other process."""
        self._count()
        return {"loss": self.loss / self.total, "accuracy": self.correct / self.total}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override] # torch's
        """Count all batches, and return the sums."""
        self._count()
        return super().state_dict(*args, **kwargs)

    def save_processes(self, checkpoint: dict[str, Any], name: str) -> None:
        """Add the sums of each of several processes, and the total, to a checkpoint.

        The total is for another number of processes. It alone would not be exact: the last bits of
        a sum depend on the order of its additions.
        """
        if distributed.is_distributed():
            checkpoint[name] = distributed.all_gather(self._named_sums(name))
            with self.sync_context():
                checkpoint["state_dict"] |= self._named_sums(name)

    def select_process(self, checkpoint: dict[str, Any], name: str) -> None:
        """Replace the sums of a checkpoint by those of this process.

        If their number differs, the first process continues from the total.
        """
        processes = checkpoint.get(name, [])
        if len(processes) == distributed.world_size():
            checkpoint["state_dict"] |= processes[distributed.rank()]
        elif not distributed.is_rank_zero():
            checkpoint["state_dict"] |= LossAndAccuracy()._named_sums(name)

    def _named_sums(self, name: str) -> dict[str, Tensor]:
        sums = self.state_dict(prefix=f"{name}.")
        return {key: tensor.cpu() for key, tensor in sums.items()}
