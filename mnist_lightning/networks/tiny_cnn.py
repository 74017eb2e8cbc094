"""A network with very few parameters."""

from torch import Tensor, nn


def _separable(inputs: int, outputs: int, padding: int = 0) -> list[nn.Module]:
    """Return a depthwise separable convolution: 3x3 for each channel, then 1x1 over all."""
    return [
        nn.Conv2d(inputs, inputs, 3, padding=padding, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs), nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
    ]  # fmt: skip


class TinyCNN(nn.Module):
    """Six convolutions, five of them separable, and global average pooling.

    3,418 parameters with the default argument. Separable convolutions, as in MobileNet (Howard
    et al., 2017), need a sixth of the parameters of plain ones of these sizes.

    Args:
        num_classes: number of logits.
        width: channels of the first layer; later layers have 2, 2.5 and 3 times as many.
    """

    def __init__(self, num_classes: int = 10, width: int = 8) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.width = width
        second, third, last = 2 * width, 5 * width // 2, 3 * width
        self.features = nn.Sequential(
            nn.InstanceNorm2d(1),  # equal brightness and contrast for all images
            nn.Conv2d(1, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            *_separable(width, second), nn.MaxPool2d(2),                          # 12x12
            *_separable(second, third, padding=1), *_separable(third, third, padding=1),
            nn.MaxPool2d(2),                                                      # 6x6
            *_separable(third, last, padding=1), *_separable(last, last),         # 4x4
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to (B, num_classes) logits."""
        return self.head(self.features(images))
