"""Random changes to whole batches, on their device.

What becomes of a batch is a function of the batch and of the generator's seed: the data module
seeds one for each batch by (seed, epoch, batch), so that neither workers nor a resumed run change
what is seen.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor
from torch.nn import functional

from mnist_lightning.data.synthetic import draw_no_digits
from mnist_lightning.preprocessing.mnist_format import MEAN, PAPER, SIZE, STD

NO_DIGITS = 2_000  # pictures of no digit


class Augmentation(ABC):
    """Changes a batch at random, as a reader of digits should not mind."""

    @abstractmethod
    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return changed copies of (B, 1, 28, 28) normalized images.

        Args:
            images: stay as they are.
            generator: on the images' device; the only source of chance.
        """


class Mixture(Augmentation):
    """Changes a batch at random, and what its images are to be taken for."""

    @abstractmethod
    def mix(self, images: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return changed copies of images (B, 1, 28, 28) and their targets (B, C).

        Args:
            images: normalized; stay as they are.
            targets: probabilities of the classes; stay as they are.
            generator: on the images' device; the only source of chance.
        """

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return the changed images alone."""
        return self.mix(images, images.new_zeros(len(images), 1), generator)[0]


class Deformation(Augmentation):
    """Rotates, scales, shears, shifts and warps each image, all in one resampling.

    The warp is that of Simard, Steinkraus and Platt ("Best practices for convolutional neural
    networks applied to visual document analysis", 2003): every point is moved by noise that a
    Gaussian has smoothed.

    Args:
        degrees: rotates by up to this angle, either way.
        scale: scales by a factor between 1 - scale and 1 + scale.
        shear: slants by up to this angle, either way.
        shift: moves by up to so many pixels, each way.
        warp: standard deviation of the warp's displacements in pixels; 0: no warp. Simard et al.
            have about 1.4.
        smoothness: the Gaussian's standard deviation in pixels.
    """

    def __init__(
        self,
        degrees: float = 10.0,
        scale: float = 0.1,
        shear: float = 5.0,
        shift: float = 2.0,
        warp: float = 0.0,
        smoothness: float = 4.0,
    ) -> None:
        ranges = {"degrees": degrees, "shear": shear, "shift": shift, "warp": warp, "scale": scale}
        for name, value in ranges.items():
            if value < 0:
                raise ValueError(f"{name} is {value}; it has to be at least 0")
        if scale >= 1 or shear >= 90:
            raise ValueError(f"scale {scale} has to be below 1, and shear {shear} below 90 degrees")
        if smoothness <= 0:
            raise ValueError(f"smoothness is {smoothness}; it has to be more than 0")
        self.degrees = degrees
        self.scale = scale
        self.shear = shear
        self.shift = shift
        self.warp = warp
        self.smoothness = smoothness

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return deformed copies of (B, 1, 28, 28) normalized images."""
        maps = self._maps(len(images), generator)
        points = functional.affine_grid(maps, list(images.shape), align_corners=False)
        if self.warp:
            points = points + self._displacements(len(images), generator)
        # What lies outside of an image is paper, and paper is not 0 once it is normalized.
        ink = images - PAPER
        return functional.grid_sample(ink, points, align_corners=False).add_(PAPER)

    def _maps(self, count: int, generator: Generator) -> Tensor:
        """Draw (B, 2, 3) maps from the points of the result to those of the image."""
        device = generator.device
        spread = torch.rand(5, count, generator=generator, device=device).mul_(2).sub_(1)
        angle, slant = spread[0] * math.radians(self.degrees), spread[1] * math.radians(self.shear)
        size = 1 / (1 + self.scale * spread[2])
        shift = spread[3:] * (2 * self.shift / SIZE)  # the image is 2 wide to grid_sample
        cosine, sine, tangent = angle.cos() * size, angle.sin() * size, slant.tan()
        rows = [cosine, cosine * tangent - sine, shift[0], sine, sine * tangent + cosine, shift[1]]
        return torch.stack(rows, dim=1).view(count, 2, 3)

    def _displacements(self, count: int, generator: Generator) -> Tensor:
        """Draw (B, 28, 28, 2) displacements of points."""
        device = generator.device
        noise = torch.randn(count, 2, SIZE, SIZE, generator=generator, device=device)
        places = torch.arange(SIZE, device=device)
        distances = (places[:, None] - places) / self.smoothness
        gaussian = torch.exp(-0.5 * distances**2)
        # Rows of length 1 leave each point's noise with a standard deviation of 1.
        gaussian = functional.normalize(gaussian, dim=1)
        smooth = gaussian @ noise @ gaussian.T
        return smooth.movedim(1, 3) * (2 * self.warp / SIZE)


class StrokeWidth(Augmentation):
    """Makes each image's strokes thicker or thinner, as another pen would.

    A stroke's border moves by whole pixels through the greatest (or least) value of each pixel and
    its four neighbors, and by what remains through a mixture of two images.

    Args:
        thinner: takes away up to so many pixels, on each side of a stroke.
        thicker: adds up to so many.
    """

    def __init__(self, thinner: float = 0.5, thicker: float = 1.0) -> None:
        for name, value in (("thinner", thinner), ("thicker", thicker)):
            if not 0 <= value <= SIZE:
                raise ValueError(f"{name} is {value}; it has to be from 0 to {SIZE}")
        self.thinner = thinner
        self.thicker = thicker

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return copies of (B, 1, 28, 28) normalized images with other strokes."""
        count = (len(images), 1, 1, 1)
        drawn = torch.rand(count, generator=generator, device=generator.device)
        change = drawn * (self.thicker + self.thinner) - self.thinner
        changed = images
        for step in range(math.ceil(self.thicker)):
            changed = torch.lerp(changed, _grown(changed), (change - step).clamp(0, 1))
        for step in range(math.ceil(self.thinner)):
            changed = torch.lerp(changed, -_grown(-changed), (-change - step).clamp(0, 1))
        return changed


def _grown(images: Tensor) -> Tensor:
    """The greatest value of each pixel and its four neighbors."""
    wide = functional.pad(images, (1, 1, 1, 1), value=-math.inf)  # pooling takes ten times as long
    across = torch.maximum(wide[..., 1:-1, :-2], wide[..., 1:-1, 2:])
    down = torch.maximum(wide[..., :-2, 1:-1], wide[..., 2:, 1:-1])
    return torch.maximum(images, torch.maximum(across, down))


class Noise(Augmentation):
    """Adds Gaussian noise, of another strength to each image.

    Args:
        std: the strongest noise's standard deviation; ink is 1 and paper 0.
    """

    def __init__(self, std: float = 0.1) -> None:
        if std < 0:
            raise ValueError(f"std is {std}; it has to be at least 0")
        self.std = std

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return noisy copies of (B, 1, 28, 28) normalized images."""
        device, count = generator.device, (len(images), 1, 1, 1)
        strength = torch.rand(count, generator=generator, device=device) * (self.std / STD)
        noise = torch.randn(images.shape, generator=generator, device=device)
        return images + strength * noise


class NoDigit(Mixture):
    """Puts pictures that are no digits in the place of some, which are to be taken for nothing.

    A network that has seen digits only is sure of whatever it is shown. After Hendrycks, Mazeika
    and Dietterich ("Deep anomaly detection with outlier exposure", 2019): for such pictures every
    class is to be as likely. They are drawn by rule: letters, signs and scribbles.

    Args:
        share: of the images, on the mean.
    """

    def __init__(self, share: float = 0.1) -> None:
        if not 0 <= share < 1:
            raise ValueError(f"share is {share}; it has to be from 0 to below 1")
        self.share = share
        self._drawn: Tensor | None = None

    def mix(self, images: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return images (B, 1, 28, 28) and targets (B, C), some of them replaced."""
        if self._drawn is None or self._drawn.device != images.device:
            ink = torch.from_numpy(draw_no_digits(NO_DIGITS, seed=0)).to(images)
            self._drawn = (ink.unsqueeze(1) / 255 - MEAN) / STD
        count, device = len(images), images.device
        chosen = torch.rand(count, generator=generator, device=device) < self.share
        which = torch.randint(NO_DIGITS, (count,), generator=generator, device=device)
        images = torch.where(chosen[:, None, None, None], self._drawn[which], images)
        return images, torch.where(chosen[:, None], 1 / targets.shape[1], targets)


class Cutout(Augmentation):
    """Covers a square of some images with paper.

    After DeVries and Taylor ("Improved regularization of convolutional neural networks with
    cutout", 2017).

    Args:
        size: the square's side in pixels; its center lies anywhere in the image.
        share: of the images, on the mean.
    """

    def __init__(self, size: int = 8, share: float = 0.5) -> None:
        if not 0 < size <= SIZE or not 0 <= share <= 1:
            raise ValueError(f"size {size} has to be from 1 to {SIZE}, and share {share} 0 to 1")
        self.size = size
        self.share = share

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return copies of (B, 1, 28, 28) normalized images, some of them covered."""
        device, count = generator.device, len(images)
        centers = torch.rand(2, count, 1, generator=generator, device=device) * SIZE
        chosen = torch.rand(count, 1, 1, generator=generator, device=device) < self.share
        places = torch.arange(SIZE, device=device) + 0.5
        down, across = ((places - center).abs() < self.size / 2 for center in centers)
        covered = down[:, :, None] & across[:, None, :] & chosen
        return images.masked_fill(covered[:, None], PAPER)


class Mixup(Mixture):
    """Mixes each image with another one of its batch, and what they are to be taken for.

    After Zhang, Cisse, Dauphin and Lopez-Paz ("mixup: beyond empirical risk minimization", 2018).

    Args:
        alpha: of the Beta distribution that the weights come from; the smaller, the more does one
            of the two prevail.
    """

    def __init__(self, alpha: float = 0.2) -> None:
        if alpha <= 0:
            raise ValueError(f"alpha is {alpha}; it has to be more than 0")
        self.alpha = alpha

    def mix(self, images: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return images (B, 1, 28, 28) and targets (B, C), each a mixture of two."""
        device, count = images.device, len(images)
        shape = torch.full((2, count), self.alpha, device=device)
        drawn = torch._standard_gamma(shape, generator=generator)
        weight = (drawn[0] / drawn.sum(dim=0).clamp_min(1e-30)).clamp(0, 1)
        other = torch.randperm(count, generator=generator, device=device)
        mixed = torch.lerp(images[other], images, weight[:, None, None, None])
        return mixed, torch.lerp(targets[other], targets, weight[:, None])
