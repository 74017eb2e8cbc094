"""A residual network for 28x28 images."""

from torch import Tensor, nn


class Residual(nn.Module):
    """Normalizes its input and adds the output of a convolution to it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.change = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        normal = self.norm(features)
        return normal + self.change(normal)


def _widen(channels: int) -> nn.Sequential:
    """Normalize, then double the number of channels."""
    return nn.Sequential(
        nn.BatchNorm2d(channels), nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.ReLU()
    )


class ResidualCNN(nn.Module):
    """Four residual blocks, at 28x28, 14x14, 7x7 and 4x4 pixels, and global average pooling.

    Each image is first normalized to mean 0 and standard deviation 1: this reduces the difference
    between thin and thick strokes.

    668,842 parameters with the default arguments. Residual learning is from He, Zhang, Ren and
    Sun (2016). The blocks of one convolution each are from T. Doucet's ensemble for MNIST (2018;
    it starts with 128 channels, about 7 times the computation).

    Args:
        num_classes: number of logits.
        width: channels at 28x28; twice as many at 7x7, four times at 4x4.
    """

    def __init__(self, num_classes: int = 10, width: int = 48) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.width = width
        self.features = nn.Sequential(
            nn.InstanceNorm2d(1),  # equal brightness and contrast for all images
            nn.Conv2d(1, width, kernel_size=5, padding=2), nn.ReLU(), Residual(width),
            nn.MaxPool2d(2), Residual(width),                              # (width, 14, 14)
            _widen(width), nn.MaxPool2d(2), Residual(2 * width),           # (2 width, 7, 7)
            _widen(2 * width), nn.MaxPool2d(2, padding=1), Residual(4 * width),
            nn.BatchNorm2d(4 * width),                                     # (4 width, 4, 4)
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to (B, num_classes) logits."""
        return self.head(self.features(images))
