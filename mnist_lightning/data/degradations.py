"""Random degradations of whole batches: light, clutter, blur, coarse pixels.

They are augmentations for a network that must withstand images of any quality.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from mnist_lightning.data.augmentations import Augmentation, check_value
from mnist_lightning.preprocessing.mnist_format import SIZE
from mnist_lightning.preprocessing.normalization import MEAN, STD


class Degradation(Augmentation):
    """Degrades some images of a batch.

    Args:
        share: expected fraction of the images to degrade.
    """

    def __init__(self, share: float) -> None:
        check_value(0 <= share <= 1, "share", share, "0 to 1")
        self.share = share

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return copies of (B, 1, 28, 28) normalized images, some of them degraded."""
        changed = images.clone()
        chosen = _uniform(len(images), generator)[:, 0, 0] < self.share
        if chosen.any():
            ink = (images[chosen, 0] * STD + MEAN).clamp_(0, 1)
            changed[chosen, 0] = (self.degrade(ink, generator) - MEAN) / STD
        return changed

    def degrade(self, ink: Tensor, generator: Generator) -> Tensor:
        """Return degraded copies of images (B, 28, 28); 0 is paper and 1 is ink."""
        raise NotImplementedError


def _uniform(count: int, generator: Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Draw a number for each image: (B, 1, 1)."""
    draws = torch.rand(count, 1, 1, generator=generator, device=generator.device)
    return draws * (high - low) + low


def _filter(images: Tensor, kernels: Tensor) -> Tensor:
    """Convolve each image (B, 28, 28) with its own kernel (B, K, K); paper surrounds it."""
    groups, side = len(images), kernels.shape[-1]
    weights = kernels.unsqueeze(1)
    return functional.conv2d(images.unsqueeze(0), weights, padding=side // 2, groups=groups)[0]


class Lighting(Degradation):
    """Mixes images with uneven light: contrast, brightness, fog and shadows.

    Args:
        share: expected fraction of the images to degrade.
        contrast: minimum share of the contrast that remains.
    """

    def __init__(self, share: float = 0.3, contrast: float = 0.1) -> None:
        super().__init__(share)
        check_value(0 < contrast <= 1, "contrast", contrast, "more than 0, up to 1")
        self.contrast = contrast

    def degrade(self, ink: Tensor, generator: Generator) -> Tensor:
        """Return mixtures of the images and of smooth random images."""
        count, device = len(ink), generator.device
        noise = torch.randn(count, 7, 7, generator=generator, device=device)
        coarse = torch.randn(count, 3, 3, generator=generator, device=device)
        field = sum(
            functional.interpolate(grid.unsqueeze(1), (SIZE, SIZE), mode="bicubic")[:, 0] * strength
            for grid, strength in (
                (noise, _uniform(count, generator)),
                (coarse, _uniform(count, generator, 0, 2)),
            )
        )
        level = _uniform(count, generator, -4, 3)
        light = torch.sigmoid(field + level)
        contrast = _uniform(count, generator, self.contrast, 1)
        return contrast * ink + (1 - contrast) * light


class Clutter(Degradation):
    """Draws bars over images, as ink, as paper, in gray or inverted: lines, patches, dashes.

    Args:
        share: expected fraction of the images to degrade.
        count: maximum number of bars on an image.
    """

    def __init__(self, share: float = 0.3, count: int = 3) -> None:
        super().__init__(share)
        check_value(1 <= count <= 100, "count", count, "1 to 100")
        self.count = count

    def degrade(self, ink: Tensor, generator: Generator) -> Tensor:
        """Return images with bars of random places, angles, lengths, widths and values."""
        wanted = _uniform(len(ink), generator, 0, self.count)
        for number in range(self.count):
            inverted = _uniform(len(ink), generator) < 0.25
            mask = self._bars(inverted, generator) * (number < wanted)
            value = _uniform(len(ink), generator, -0.5, 1.5).clamp(0, 1)
            ink = torch.lerp(ink, torch.where(inverted, 1 - ink, value), mask)
        return ink

    def _bars(self, inverted: Tensor, generator: Generator) -> Tensor:
        """Draw masks (B, 28, 28) of one bar each, half of the long ones dashed.

        An inverted bar may be wide; the others, which hide what is below, have a limited area.
        """
        count = len(inverted)
        angle = _uniform(count, generator, 0, math.pi)
        positions = torch.arange(SIZE, device=generator.device) - (SIZE - 1) / 2
        across = positions - _uniform(count, generator, -10, 10)
        down = positions[:, None] - _uniform(count, generator, -10, 10)
        along = across * angle.cos() + down * angle.sin()
        beside = down * angle.cos() - across * angle.sin()
        half_length = _uniform(count, generator, math.log(2), math.log(40)).exp()
        widest = torch.where(inverted, 12, (40 / half_length).clamp(1, 5))
        half_width = 0.4 + (widest - 0.4) * _uniform(count, generator)
        mask = (half_length + 0.5 - along.abs()).clamp(0, 1)
        mask = mask * (half_width + 0.5 - beside.abs()).clamp(0, 1)
        period = _uniform(count, generator, 3, 10)
        dashes = (torch.sin(along * (2 * math.pi / period)) * 2 + 0.5).clamp(0, 1)
        dashed = (_uniform(count, generator) < 0.5) & (half_length > 8)
        return mask * torch.where(dashed, dashes, 1)


class Blur(Degradation):
    """Blurs images with Gaussians of random shapes and directions.

    Args:
        share: expected fraction of the images to degrade.
        std: maximum standard deviation along each of the two axes, in pixels.
    """

    def __init__(self, share: float = 0.3, std: float = 2.5) -> None:
        super().__init__(share)
        check_value(0 < std <= SIZE, "std", std, f"more than 0, up to {SIZE}")
        self.std = std

    def degrade(self, ink: Tensor, generator: Generator) -> Tensor:
        """Return blurred images."""
        count, reach = len(ink), math.ceil(2 * self.std)
        offsets = torch.arange(-reach, reach + 1, device=generator.device)
        angle = _uniform(count, generator, 0, math.pi)
        along = offsets * angle.cos() + offsets[:, None] * angle.sin()
        beside = offsets[:, None] * angle.cos() - offsets * angle.sin()
        long = _uniform(count, generator, min(0.3, self.std), self.std)
        short = _uniform(count, generator, 0.3, 1) * long  # down to 0.3: as if moved
        kernels = torch.exp(-0.5 * ((along / long) ** 2 + (beside / short) ** 2))
        return _filter(ink, kernels / kernels.sum((1, 2), keepdim=True))


class RandomFilter(Degradation):
    """Convolves images with random kernels: changed textures, outlines, reliefs.

    Based on Xu, Liu, Yang, Raffel and Niethammer ("Robust and generalizable visual representation
    learning via random convolutions", 2021).

    Args:
        share: expected fraction of the images to degrade.
        size: side length of the kernels in pixels, an odd number.
    """

    def __init__(self, share: float = 0.3, size: int = 5) -> None:
        super().__init__(share)
        check_value(size % 2 == 1 and 1 <= size < SIZE, "size", size, f"odd, below {SIZE}")
        self.size = size

    def degrade(self, ink: Tensor, generator: Generator) -> Tensor:
        """Return mixtures of the images and of their responses to random kernels."""
        count, device = len(ink), generator.device
        kernels = torch.randn(count, self.size, self.size, generator=generator, device=device)
        # Half of the kernels do not react to an even surface: they find outlines.
        mean = kernels.mean((1, 2), keepdim=True)
        kernels = kernels - mean * (_uniform(count, generator) < 0.5)
        response = _filter(ink, kernels)
        response = response / response.abs().amax((1, 2), keepdim=True).clamp_min(1e-6)
        folded = torch.where(_uniform(count, generator) < 0.5, response.abs(), response / 2 + 0.5)
        return torch.lerp(ink, folded, _uniform(count, generator))


class LowResolution(Degradation):
    """Averages images over coarse pixels, as a scanner does, and enlarges them again.

    Half of the images keep the edges of the coarse pixels, the others are interpolated.

    Args:
        share: expected fraction of the images to degrade.
        side: maximum side of a coarse pixel.
        one_bit: expected fraction of the degraded images that are reduced to two values.
    """

    def __init__(self, share: float = 0.3, side: float = 3.0, one_bit: float = 0.5) -> None:
        super().__init__(share)
        check_value(1 <= side <= SIZE, "side", side, f"1 to {SIZE}")
        check_value(0 <= one_bit <= 1, "one_bit", one_bit, "0 to 1")
        self.side = side
        self.one_bit = one_bit

    def degrade(self, ink: Tensor, generator: Generator) -> Tensor:
        """Return images of coarse pixels, with a random grid for each."""
        count = len(ink)
        side = _uniform(count, generator, 1, self.side)
        rows, columns = (self._averages(side, generator) for _ in range(2))
        coarse = rows @ ink @ columns
        threshold = _uniform(count, generator, 0.2, 0.6)
        one_bit = _uniform(count, generator) < self.one_bit
        coarse = torch.where(one_bit, (coarse > threshold).to(ink.dtype), coarse)
        smooth = self._interpolation(side)
        interpolated = _uniform(count, generator) < 0.5
        return torch.where(interpolated, smooth @ coarse @ smooth.mT, coarse)

    def _averages(self, side: Tensor, generator: Generator) -> Tensor:
        """Return matrices (B, 28, 28) that average along one axis over coarse pixels."""
        positions = torch.arange(SIZE, device=generator.device)
        offset = _uniform(len(side), generator)[:, 0]
        cells = (positions / side[:, 0] + offset).floor()
        same = (cells[:, :, None] == cells[:, None, :]).to(side.dtype)
        return same / same.sum(dim=2, keepdim=True)

    def _interpolation(self, side: Tensor) -> Tensor:
        """Return matrices (B, 28, 28) that average along one axis over a coarse pixel's width."""
        positions = torch.arange(SIZE, device=side.device)
        distances = (positions - positions[:, None]).abs()
        overlap = ((side + 1) / 2 - distances).clamp(0, 1)
        return overlap / overlap.sum(dim=2, keepdim=True)
