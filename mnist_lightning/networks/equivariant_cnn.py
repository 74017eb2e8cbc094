"""A network whose weights are shared by rotations and reflections."""

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE = 28  # pixels
ORIENTATIONS = 8


def _orientations() -> tuple[Tensor, Tensor]:
    """Return the four rotations of a 3x3 kernel and those of its mirror image.

    Returns:
        permutations: (8, 9), the weights of the kernel in each orientation.
        steps: (8, 8), the change that turns the first orientation into the second one.
    """
    kernel = torch.arange(9).view(3, 3)
    sides = (kernel, kernel.flip(1))
    turned = [side.rot90(turns).flatten() for side in sides for turns in range(4)]
    permutations = torch.stack(turned)
    between = permutations[:, permutations.argsort(dim=1)].transpose(0, 1)
    is_step = (between.unsqueeze(2) == permutations).all(dim=3)
    return permutations, is_step.int().argmax(dim=2)


class Deskew(nn.Module):
    """Centers each image, and shears it so that its strokes are upright on average.

    Both are computed from the moments of the ink, as in LeCun, Bottou, Bengio and Haffner
    ("Gradient-based learning applied to document recognition", 1998).
    """

    rows: Tensor
    columns: Tensor

    def __init__(self) -> None:
        super().__init__()
        positions = (2 * torch.arange(SIZE) + 1) / SIZE - 1  # the centers of the pixels
        self.register_buffer("rows", positions.view(1, SIZE, 1), persistent=False)
        self.register_buffer("columns", positions.view(1, 1, SIZE), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to the same shape."""
        paper = images.amin(dim=(2, 3), keepdim=True)
        ink = images - paper
        weight = ink.squeeze(1) / (_sum(ink.squeeze(1)) + 1e-6)
        top, left = _sum(weight * self.rows), _sum(weight * self.columns)
        down, across = self.rows - top, self.columns - left
        slant = _sum(weight * down * across) / (_sum(weight * down * down) + 1e-4)
        x = self.columns + left + slant * self.rows
        y = self.rows + top
        points = torch.stack(torch.broadcast_tensors(x, y), dim=-1)  # (B, 28, 28, 2)
        return functional.grid_sample(ink, points, align_corners=False) + paper


def _sum(values: Tensor) -> Tensor:
    """Sum over rows and columns: (B, 28, 28) to (B, 1, 1)."""
    return values.sum(dim=(1, 2), keepdim=True)


class DepthwiseConv(nn.Module):
    """Convolves each feature with its own 3x3 kernel, in eight orientations."""

    permutations: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(features, 9).uniform_(-1 / 3, 1 / 3))
        self.register_buffer("permutations", _orientations()[0], persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, 8 * features, H, W), or an image, to (B, 8 * features, H - 2, W - 2)."""
        kernels = self.weight[:, self.permutations].reshape(-1, 1, 3, 3)
        return functional.conv2d(maps, kernels, groups=maps.shape[1])


class PointwiseConv(nn.Module):
    """Mixes all features of all orientations at each pixel, in the same way in each orientation."""

    steps: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        limit = (inputs * ORIENTATIONS) ** -0.5
        weight = torch.empty(outputs, inputs, ORIENTATIONS).uniform_(-limit, limit)
        self.weight = nn.Parameter(weight)
        self.register_buffer("steps", _orientations()[1], persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, 8 * inputs, H, W) to (B, 8 * outputs, H, W)."""
        weight = self.weight[:, :, self.steps].transpose(1, 2)  # (outputs, 8, inputs, 8)
        return functional.conv2d(maps, weight.reshape(-1, maps.shape[1], 1, 1))


class FeatureNorm(nn.BatchNorm3d):
    """Normalizes each feature over all its orientations, without parameters."""

    def __init__(self, features: int) -> None:
        super().__init__(features, affine=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, 8 * features, H, W) to the same shape."""
        if self.training:
            return super().forward(maps.unflatten(1, (-1, ORIENTATIONS))).flatten(1, 2)
        statistics = [self.running_mean, self.running_var]
        mean, variance = (s.repeat_interleave(ORIENTATIONS) for s in statistics if s is not None)
        return functional.batch_norm(maps, mean, variance, eps=self.eps)


def _mix(inputs: int, outputs: int) -> list[nn.Module]:
    return [PointwiseConv(inputs, outputs), FeatureNorm(outputs), nn.ReLU()]


class EquivariantCNN(nn.Module):
    """Five separable convolutions whose weights are shared by eight orientations.

    598 parameters with the default arguments. A stroke has the same features in each orientation,
    so each kernel is used in four rotations, and mirrored. The last layer sees the orientations
    separately, and can distinguish 6 and 9. This is a group-equivariant network (Cohen and
    Welling, 2016), with separable convolutions as in MobileNet (Howard et al., 2017).

    Args:
        num_classes: number of logits.
        width: features after every second convolution. Each feature has eight maps.
        wider: features after the other convolutions.
    """

    def __init__(self, num_classes: int = 10, width: int = 2, wider: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.width = width
        self.wider = wider
        self.normalize = nn.Sequential(Deskew(), nn.InstanceNorm2d(1))
        self.kernels = DepthwiseConv(width)
        self.norm, self.relu, self.pool = FeatureNorm(width), nn.ReLU(), nn.MaxPool2d(2)
        self.layers = nn.Sequential(
            *_mix(width, wider),                         # (8 wider, 12, 12)
            DepthwiseConv(wider), *_mix(wider, width),   # (8 width, 10, 10)
            DepthwiseConv(width), *_mix(width, wider),   # (8 wider, 8, 8)
            DepthwiseConv(wider), *_mix(wider, width),   # (8 width, 6, 6)
            DepthwiseConv(width), *_mix(width, wider),   # (8 wider, 4, 4)
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(ORIENTATIONS * wider, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to (B, num_classes) logits."""
        # The first two layers have the same kernels.
        maps = self.relu(self.norm(self.kernels(self.normalize(images))))  # (8 width, 26, 26)
        maps = self.pool(self.kernels(maps))  # (8 width, 12, 12)
        return self.head(self.layers(maps))
