"""As few parameters as will do."""

from torch import Tensor, nn


class TinyCNN(nn.Module):
    """Six convolutions with batch normalisation and a mean over the picture.

    The plan of the smallest networks for MNIST: thin layers, no linear layer over pixels, a 1x1
    convolution where channels are to become fewer.
    """

    def __init__(self, num_classes: int = 10, width: int = 12, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.width = width
        self.dropout = dropout

        def layer(inputs: int, outputs: int, size: int = 3, padding: int = 0) -> list[nn.Module]:
            convolution = nn.Conv2d(inputs, outputs, size, padding=padding, bias=False)
            return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.Dropout2d(dropout)]

        self.features = nn.Sequential(
            *layer(1, width), *layer(width, width), nn.MaxPool2d(2),            # (width, 12, 12)
            *layer(width, width, padding=1), *layer(width, width, padding=1),
            nn.MaxPool2d(2),                                                    # (width, 6, 6)
            *layer(width, width + 4, padding=1), *layer(width + 4, width + 4),  # (width + 4, 4, 4)
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width + 4, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalised images to (B, num_classes) logits."""
        logits: Tensor = self.head(self.features(images))
        return logits
