"""The convolutional network of PyTorch's first MNIST example."""

from torch import Tensor, nn


class ClassicCNN(nn.Module):
    """Two convolutions, channel dropout and two linear layers: 21,840 parameters for ten classes.

    The network of the PyTorch project's original MNIST example (github.com/pytorch/examples,
    2017). Differs from it: the output is logits; the loss applies the softmax.
    """

    def __init__(self, num_classes: int = 10, dropout: float = 0.5) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.dropout = dropout
        self.features = nn.Sequential(
            nn.Conv2d(1, 10, kernel_size=5), nn.MaxPool2d(2), nn.ReLU(),  # (10, 12, 12)
            nn.Conv2d(10, 20, kernel_size=5), nn.Dropout2d(dropout),      # (20, 8, 8)
            nn.MaxPool2d(2), nn.ReLU(),                                   # (20, 4, 4)
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(20 * 4 * 4, 50), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(50, num_classes),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to (B, num_classes) logits."""
        return self.head(self.features(images))
