"""Three convolutions with batch normalization."""

from torch import Tensor, nn


class BatchNormCNN(nn.Module):
    """Three pooled convolutions, each normalized over the batch, and one linear layer.

    104,938 parameters for ten classes. Batch normalization is from Ioffe and Szegedy (2015); it
    replaces the biases.
    """

    def __init__(self, num_classes: int = 10, dropout: float = 0.3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.dropout = dropout
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=5, padding=2, bias=False),    # (32, 28, 28)
            nn.MaxPool2d(2), nn.BatchNorm2d(32), nn.SiLU(),            # (32, 14, 14)
            nn.Conv2d(32, 64, kernel_size=3, padding=1, bias=False),
            nn.MaxPool2d(2), nn.BatchNorm2d(64), nn.SiLU(),            # (64, 7, 7)
            nn.Conv2d(64, 128, kernel_size=3, padding=1, bias=False),
            nn.MaxPool2d(2), nn.BatchNorm2d(128), nn.SiLU(),           # (128, 3, 3)
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Flatten(), nn.Dropout(dropout), nn.Linear(128 * 3 * 3, num_classes),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to (B, num_classes) logits."""
        return self.head(self.features(images))
