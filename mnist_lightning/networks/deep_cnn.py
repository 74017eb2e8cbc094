"""Four convolutions without padding."""

from torch import Tensor, nn


class DeepCNN(nn.Module):
    """Two pairs of 3x3 convolutions, each pair pooled, and two linear layers: 593,200 parameters.

    A small VGG (Simonyan and Zisserman, 2015) without padding.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=3), nn.ReLU(),     # (32, 26, 26)
            nn.Conv2d(32, 64, kernel_size=3), nn.ReLU(),    # (64, 24, 24)
            nn.MaxPool2d(2),                                # (64, 12, 12)
            nn.Conv2d(64, 128, kernel_size=3), nn.ReLU(),   # (128, 10, 10)
            nn.Conv2d(128, 256, kernel_size=3), nn.ReLU(),  # (256, 8, 8)
            nn.MaxPool2d(2),                                # (256, 4, 4)
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(256 * 4 * 4, 50), nn.ReLU(), nn.Linear(50, num_classes),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to (B, num_classes) logits."""
        return self.head(self.features(images))
