"""A multilayer perceptron."""

from torch import Tensor, nn


class MultilayerPerceptron(nn.Module):
    """Three linear layers, 784-64-32-10, with ReLU between them: 52,650 parameters."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(28 * 28, 64), nn.ReLU(),
            nn.Linear(64, 32), nn.ReLU(),
            nn.Linear(32, num_classes),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to (B, num_classes) logits."""
        return self.layers(images)
