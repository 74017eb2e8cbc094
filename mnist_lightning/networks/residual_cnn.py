"""A residual network for 28x28 pictures."""

from torch import Tensor, nn


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(outputs)
    )


class Residual(nn.Module):
    """Two convolutions, whose result is added to what they were given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            _convolution(channels, channels), nn.ReLU(), _convolution(channels, channels)
        )
        self.activation = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same."""
        activated: Tensor = self.activation(features + self.change(features))
        return activated


class ResidualCNN(nn.Module):
    """Three stages of 28x28, 14x14 and 7x7 pixels, residual blocks in the last two.

    With the default arguments 684,714 parameters. The blocks are those of He, Zhang, Ren and Sun
    ("Deep residual learning for image recognition", 2016); the plan is made for a processor: half
    of the work lies where the pictures are small.
    """

    def __init__(
        self, num_classes: int = 10, width: int = 32, blocks: int = 1, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.width = width
        self.blocks = blocks
        self.dropout = dropout
        self.features = nn.Sequential(
            _convolution(1, width), nn.ReLU(), nn.MaxPool2d(2),              # (width, 14, 14)
            _convolution(width, 2 * width), nn.ReLU(),
            *(Residual(2 * width) for _ in range(blocks)), nn.MaxPool2d(2),  # (2 * width, 7, 7)
            _convolution(2 * width, 4 * width), nn.ReLU(),
            *(Residual(4 * width) for _ in range(blocks)),                   # (4 * width, 7, 7)
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout),
            nn.Linear(4 * width, num_classes),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalised images to (B, num_classes) logits."""
        logits: Tensor = self.head(self.features(images))
        return logits
