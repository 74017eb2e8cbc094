"""The network of the speed run."""

import torch
from torch import Tensor, nn


class SpeedCNN(nn.Module):
    """Two convolutions and two linear layers: 77,386 parameters.

    Based on a network that reached 99 % in 0.76 s on a GTX 1660 Ti (github.com/tuomaso/
    train_mnist_fast). Differs from it: a crop of two pixels on each side, which are background in
    nearly all images; squares of four pixels as channels instead of the first pooling, which
    reduces the first convolution to a quarter of the computation; SiLU instead of most ReLUs; half
    as many hidden units.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.features = nn.Sequential(
            nn.ZeroPad2d(-2), nn.PixelUnshuffle(2),                         # (4, 12, 12)
            nn.Conv2d(4, 32, kernel_size=3), nn.ReLU(),                     # (32, 10, 10)
            nn.Conv2d(32, 32, kernel_size=3), nn.MaxPool2d(2), nn.SiLU(),   # (32, 4, 4)
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(32 * 4 * 4, 128), nn.SiLU(), nn.Linear(128, num_classes),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to (B, num_classes) logits."""
        maps: Tensor = self.features(images)
        if maps.requires_grad and not torch.compiler.is_compiling():
            maps.register_hook(_channels_last)
        return self.head(maps)


def _channels_last(gradient: Tensor) -> Tensor:
    """Return a gradient in the memory format of the convolutions: a tenth of the time is saved."""
    return gradient.contiguous(memory_format=torch.channels_last)
