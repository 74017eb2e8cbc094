"""What is counted of an epoch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchmetrics import Metric


class LossAndAccuracy(Metric):
    """Mean loss and accuracy over all the samples of an epoch, whatever the batch sizes.

    The sums stay tensors on the device until `compute`; they are part of a checkpoint, so that
    an epoch that was interrupted and resumed has its whole mean.
    """

    full_state_update = False
    loss: Tensor
    correct: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        zero = torch.zeros((), dtype=torch.int64)
        self.add_state("loss", torch.zeros(()), dist_reduce_fx="sum", persistent=True)
        self.add_state("correct", zero, dist_reduce_fx="sum", persistent=True)
        self.add_state("total", zero.clone(), dist_reduce_fx="sum", persistent=True)

    def _apply(
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ""
    ) -> nn.Module:
        """Move with the network, but keep the sums exact whatever its precision."""
        return super()._apply(lambda tensor: fn(tensor).to(tensor.dtype), exclude_state)

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss (), its logits (B, C) and its labels (B,)."""
        self.loss.add_(loss, alpha=len(labels))
        self.correct.add_((logits.argmax(dim=1) == labels).sum())
        self.total.add_(len(labels))

    def compute(self) -> dict[str, Tensor]:
        """Return `loss` and `accuracy` (in [0, 1])."""
        return {"loss": self.loss / self.total, "accuracy": self.correct / self.total}
