"""Two wide convolutions with dropout."""

from torch import Tensor, nn


class DigitNet(nn.Module):
    """Two pooled convolutions, 32 and 64 channels, and two linear layers: 225,034 parameters.

    A common introductory architecture. The dropout rates are those of PyTorch's current MNIST
    example (github.com/pytorch/examples): 0.25 before the first linear layer and 0.5 before the
    second. Differs from that example: it also pools after the first convolution, so the first
    linear layer has 1,600 inputs instead of 9,216.
    """

    def __init__(self, num_classes: int = 10, dropout: float = 0.5) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.dropout = dropout
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=3), nn.ReLU(), nn.MaxPool2d(2),   # (32, 13, 13)
            nn.Conv2d(32, 64, kernel_size=3), nn.ReLU(), nn.MaxPool2d(2),  # (64, 5, 5)
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Flatten(), nn.Dropout(dropout / 2), nn.Linear(64 * 5 * 5, 128), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(128, num_classes),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to (B, num_classes) logits."""
        return self.head(self.features(images))
