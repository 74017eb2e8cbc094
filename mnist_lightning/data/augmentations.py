"""Random changes to whole batches, on their device.

The result depends only on the batch and the generator's seed. The data module seeds a generator
for each batch with (seed, epoch, batch): the number of workers and resuming a run do not change
the training images.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache

import torch
from torch import Generator, Tensor
from torch.nn import functional

from mnist_lightning.data.synthetic import draw_non_digits
from mnist_lightning.preprocessing.mnist_format import SIZE
from mnist_lightning.preprocessing.normalization import MEAN, PAPER, STD

NUM_NON_DIGITS = 3_000  # images of letters, signs and scribbles


def check_value(is_valid: bool, name: str, value: float, expected: str) -> None:
    """Raise a ValueError if the value of an option is not valid."""
    if not is_valid:
        raise ValueError(f"{name}: invalid value {value}; expected {expected}")


class Augmentation(ABC):
    """Changes the images of a batch at random; their labels stay correct."""

    @abstractmethod
    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return changed copies of (B, 1, 28, 28) normalized images.

        Args:
            images: not modified.
            generator: on the images' device; the only source of randomness.
        """


class Mixture(Augmentation):
    """Changes the images of a batch and their targets at random."""

    @abstractmethod
    def mix(self, images: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return changed copies of images (B, 1, 28, 28) and their targets (B, C).

        Args:
            images: normalized; not modified.
            targets: class probabilities; not modified.
            generator: on the images' device; the only source of randomness.
        """

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return only the changed images."""
        return self.mix(images, images.new_zeros(len(images), 1), generator)[0]


@dataclass(eq=False)
class Deformation(Augmentation):
    """Rotates, scales, shears, shifts and warps each image in one resampling step.

    The warp is that of Simard, Steinkraus and Platt ("Best practices for convolutional neural
    networks applied to visual document analysis", 2003): each point moves by noise smoothed with
    a Gaussian.

    Args:
        degrees: maximum rotation angle, in both directions.
        scale: the scaling factor is between 1 - scale and 1 + scale.
        shear: maximum shear angle in degrees, in both directions.
        shift: maximum shift in pixels, in each direction.
        warp: standard deviation of the warp's displacements in pixels; 0: no warp. Simard et al.
            use about 1.4.
        smoothness: standard deviation of the Gaussian in pixels.
        stretch: the ratio of width and height changes by a factor between 1 / (1 + stretch) and
            1 + stretch.
    """

    degrees: float = 10.0
    scale: float = 0.1
    shear: float = 5.0
    shift: float = 2.0
    warp: float = 0.0
    smoothness: float = 4.0
    stretch: float = 0.0

    def __post_init__(self) -> None:
        for name in ("degrees", "shear", "shift", "warp", "scale", "stretch"):
            value = getattr(self, name)
            check_value(0 <= value < math.inf, name, value, "at least 0")
        if self.scale >= 1 or self.shear >= 90:
            values = f"scale {self.scale}, shear {self.shear}"
            raise ValueError(f"{values}: expected below 1 and 90 degrees")
        check_value(0 < self.smoothness < math.inf, "smoothness", self.smoothness, "more than 0")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return deformed copies of (B, 1, 28, 28) normalized images."""
        affine = self._random_affine(len(images), generator)
        points = functional.affine_grid(affine, list(images.shape), align_corners=False)
        if self.warp:
            points = points + self._displacements(len(images), generator)
        # Pixels outside the image are background, which is not 0 after normalization.
        ink = images - PAPER
        return functional.grid_sample(ink, points, align_corners=False).add_(PAPER)

    def _random_affine(self, count: int, generator: Generator) -> Tensor:
        """Draw affine maps (B, 2, 3) from output coordinates to input coordinates."""
        device = generator.device
        spread = torch.rand(5, count, generator=generator, device=device).mul_(2).sub_(1)
        angle, slant = spread[0] * math.radians(self.degrees), spread[1] * math.radians(self.shear)
        size = 1 / (1 + self.scale * spread[2])
        shift = spread[3:] * (2 * self.shift / SIZE)  # grid_sample uses a width of 2
        cosine, sine, tangent = angle.cos() * size, angle.sin() * size, slant.tan()
        rows = [cosine, cosine * tangent - sine, shift[0], sine, sine * tangent + cosine, shift[1]]
        affine = torch.stack(rows, dim=1).view(count, 2, 3)
        if self.stretch:
            exponents = torch.rand(count, generator=generator, device=device) - 0.5
            widening = (1 + self.stretch) ** exponents
            affine[:, :, 0] /= widening[:, None]
            affine[:, :, 1] *= widening[:, None]
        return affine

    def _displacements(self, count: int, generator: Generator) -> Tensor:
        """Draw the displacement of each point: (B, 28, 28, 2)."""
        device = generator.device
        noise = torch.randn(count, 2, SIZE, SIZE, generator=generator, device=device)
        positions = torch.arange(SIZE, device=device)
        distances = (positions[:, None] - positions) / self.smoothness
        gaussian = torch.exp(-0.5 * distances**2)
        # Rows of norm 1 keep the standard deviation of the noise at 1.
        gaussian = functional.normalize(gaussian, dim=1)
        smooth = gaussian @ noise @ gaussian.T
        return smooth.movedim(1, 3) * (2 * self.warp / SIZE)


class StrokeWidth(Augmentation):
    """Makes the strokes of each image thicker or thinner.

    Dilation (or erosion) over each pixel and its four neighbors moves the edge of a stroke by
    whole pixels. Interpolation between two images moves it by the fractional part.

    Args:
        thinner: maximum number of pixels to remove on each side of a stroke.
        thicker: maximum number of pixels to add on each side.
    """

    def __init__(self, thinner: float = 0.5, thicker: float = 1.0) -> None:
        for name, value in (("thinner", thinner), ("thicker", thicker)):
            check_value(0 <= value <= SIZE, name, value, f"0 to {SIZE}")
        self.thinner = thinner
        self.thicker = thicker

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return copies of (B, 1, 28, 28) normalized images with changed strokes."""
        count = (len(images), 1, 1, 1)
        uniform = torch.rand(count, generator=generator, device=generator.device)
        change = uniform * (self.thicker + self.thinner) - self.thinner
        changed = images
        for step in range(math.ceil(self.thicker)):
            changed = torch.lerp(changed, _dilate(changed), (change - step).clamp(0, 1))
        for step in range(math.ceil(self.thinner)):
            changed = torch.lerp(changed, -_dilate(-changed), (-change - step).clamp(0, 1))
        return changed


def _dilate(images: Tensor) -> Tensor:
    """Return the maximum of each pixel and its four neighbors."""
    padded = functional.pad(images, (1, 1, 1, 1), value=-math.inf)  # max_pool2d is ten times slower
    horizontal = torch.maximum(padded[..., 1:-1, :-2], padded[..., 1:-1, 2:])
    vertical = torch.maximum(padded[..., :-2, 1:-1], padded[..., 2:, 1:-1])
    return torch.maximum(images, torch.maximum(horizontal, vertical))


class Noise(Augmentation):
    """Adds Gaussian noise of a random strength to each image.

    Args:
        std: maximum standard deviation of the noise; ink is 1 and background 0.
    """

    def __init__(self, std: float = 0.1) -> None:
        check_value(0 <= std < math.inf, "std", std, "at least 0")
        self.std = std

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return noisy copies of (B, 1, 28, 28) normalized images."""
        device, count = generator.device, (len(images), 1, 1, 1)
        strength = torch.rand(count, generator=generator, device=device) * (self.std / STD)
        noise = torch.randn(images.shape, generator=generator, device=device)
        return images + strength * noise


@cache
def _normalized_non_digits(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return images (3000, 1, 28, 28), the same for each `NoDigit`."""
    ink = torch.from_numpy(draw_non_digits(NUM_NON_DIGITS, seed=0)).to(device, dtype)
    return (ink.unsqueeze(1) / 255 - MEAN) / STD


class NoDigit(Mixture):
    """Replaces some images with non-digits; their targets are uniform probabilities.

    A network trained only on digits is too confident on other images. Based on Hendrycks, Mazeika
    and Dietterich ("Deep anomaly detection with outlier exposure", 2019). The non-digits are
    synthetic: letters, signs and scribbles.

    Args:
        share: expected fraction of the images to replace.
    """

    def __init__(self, share: float = 0.1) -> None:
        check_value(0 <= share < 1, "share", share, "at least 0 and below 1")
        self.share = share

    def mix(self, images: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return images (B, 1, 28, 28) and targets (B, C), some of them replaced."""
        non_digits = _normalized_non_digits(images.device, images.dtype)
        count, device = len(images), images.device
        chosen = torch.rand(count, generator=generator, device=device) < self.share
        indices = torch.randint(NUM_NON_DIGITS, (count,), generator=generator, device=device)
        images = torch.where(chosen[:, None, None, None], non_digits[indices], images)
        return images, torch.where(chosen[:, None], 1 / targets.shape[1], targets)


class Cutout(Augmentation):
    """Covers a square of some images with background.

    Based on DeVries and Taylor ("Improved regularization of convolutional neural networks with
    cutout", 2017).

    Args:
        size: side length of the square in pixels; its center is a random point of the image.
        share: expected fraction of the images to change.
    """

    def __init__(self, size: int = 8, share: float = 0.5) -> None:
        if not 0 < size <= SIZE or not 0 <= share <= 1:
            raise ValueError(f"size {size}, share {share}: expected 1 to {SIZE} and 0 to 1")
        self.size = size
        self.share = share

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return copies of (B, 1, 28, 28) normalized images, some with a covered square."""
        device, count = generator.device, len(images)
        centers = torch.rand(2, count, 1, generator=generator, device=device) * SIZE
        chosen = torch.rand(count, 1, 1, generator=generator, device=device) < self.share
        positions = torch.arange(SIZE, device=device) + 0.5
        rows, columns = ((positions - center).abs() < self.size / 2 for center in centers)
        covered = rows[:, :, None] & columns[:, None, :] & chosen
        return images.masked_fill(covered[:, None], PAPER)


class Mixup(Mixture):
    """Mixes each image, and its target, with another one of the batch.

    By Zhang, Cisse, Dauphin and Lopez-Paz ("mixup: beyond empirical risk minimization", 2018).

    Args:
        alpha: parameter of the Beta distribution of the mixing weights; with a smaller value, one
            of the two images dominates more.
    """

    def __init__(self, alpha: float = 0.2) -> None:
        check_value(0 < alpha < math.inf, "alpha", alpha, "more than 0")
        self.alpha = alpha

    def mix(self, images: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return images (B, 1, 28, 28) and targets (B, C), each a mixture of two."""
        device, count = images.device, len(images)
        shape = torch.full((2, count), self.alpha, device=device)
        gammas = torch._standard_gamma(shape, generator=generator)
        weight = (gammas[0] / gammas.sum(dim=0).clamp_min(1e-30)).clamp(0, 1)
        other = torch.randperm(count, generator=generator, device=device)
        mixed = torch.lerp(images[other], images, weight[:, None, None, None])
        return mixed, torch.lerp(targets[other], targets, weight[:, None])
