"""The network of the speed run."""

from torch import Tensor, nn


class SpeedCNN(nn.Module):
    """Two convolutions, the first with stride 2, and two linear layers: 77,034 parameters.

    Based on a network that reached 99 % in 0.76 s on a GTX 1660 Ti (github.com/tuomaso/
    train_mnist_fast). Differs from it: a crop of two pixels on each side, which are background in
    nearly all images; a stride instead of the first pooling, which reduces the first convolution
    to a quarter of the computation; SiLU instead of ReLU; half as many hidden units.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.features = nn.Sequential(
            nn.ZeroPad2d(-2),                                               # (1, 24, 24)
            nn.Conv2d(1, 32, kernel_size=5, stride=2), nn.SiLU(),           # (32, 10, 10)
            nn.Conv2d(32, 32, kernel_size=3), nn.MaxPool2d(2), nn.SiLU(),   # (32, 4, 4)
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(32 * 4 * 4, 128), nn.SiLU(), nn.Linear(128, num_classes),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to (B, num_classes) logits."""
        return self.head(self.features(images))
