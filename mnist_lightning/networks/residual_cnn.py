"""A residual network for 28x28 pictures."""

from torch import Tensor, nn


class Residual(nn.Module):
    """Normalizes features, and adds to them what a convolution makes of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.change = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same."""
        normal: Tensor = self.norm(features)
        changed: Tensor = normal + self.change(normal)
        return changed


def _wider(channels: int) -> nn.Sequential:
    """Normalize, and double the channels."""
    return nn.Sequential(
        nn.BatchNorm2d(channels), nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.ReLU()
    )


class ResidualCNN(nn.Module):
    """Four residual blocks, at 28x28, 14x14, 7x7 and 4x4 pixels, and a mean over the picture.

    Each picture is first brought to mean 0 and standard deviation 1: thin and thick strokes then
    differ less.

    With the default arguments 668,842 parameters. Residual learning is that of He, Zhang, Ren and
    Sun (2016). The plan, of blocks with one convolution each, is that of T. Doucet's committee
    for MNIST (2018; 128 channels at first, some 7 times the work).

    Args:
        num_classes: how many logits.
        width: channels at 28x28; twice as many at 7x7, four times at 4x4.
    """

    def __init__(self, num_classes: int = 10, width: int = 48) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.width = width
        self.features = nn.Sequential(
            nn.InstanceNorm2d(1),  # each picture as light and as full of contrast as the others
            nn.Conv2d(1, width, kernel_size=5, padding=2), nn.ReLU(), Residual(width),
            nn.MaxPool2d(2), Residual(width),                              # (width, 14, 14)
            _wider(width), nn.MaxPool2d(2), Residual(2 * width),           # (2 width, 7, 7)
            _wider(2 * width), nn.MaxPool2d(2, padding=1), Residual(4 * width),
            nn.BatchNorm2d(4 * width),                                     # (4 width, 4, 4)
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to (B, num_classes) logits."""
        logits: Tensor = self.head(self.features(images))
        return logits
