"""Corruptions of test images, in five severities."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

Ink = NDArray[np.floating[Any]]  # (N, 28, 28), 0 for paper, 255 for the darkest ink


class Corruption(NamedTuple):
    """One kind of corruption.

    Attributes:
        name: of the corruption.
        unit: of the strengths.
        strengths: the severities, weakest first.
        apply: returns corrupted copies of images; random numbers come from the generator.
    """

    name: str
    unit: str
    strengths: Sequence[float]
    apply: Callable[[Ink, float, Generator], Ink]


def _noise(ink: Ink, strength: float, generator: Generator) -> Ink:
    return ink + 255 * strength * generator.standard_normal(ink.shape)


def _blur(ink: Ink, strength: float, generator: Generator) -> Ink:
    return np.asarray(ndimage.gaussian_filter(ink, (0, strength, strength)))


def _rotation(ink: Ink, strength: float, generator: Generator) -> Ink:
    angles = np.radians(strength) * _signs(len(ink))
    cosine, sine = np.cos(angles), np.sin(angles)
    return _resample(ink, np.array([[cosine, -sine], [sine, cosine]]), np.zeros((2, len(ink))))


def _shift(ink: Ink, strength: float, generator: Generator) -> Ink:
    angles = generator.uniform(0, 2 * np.pi, len(ink))
    shifts = strength * np.array([np.sin(angles), np.cos(angles)])
    return _resample(ink, np.eye(2)[:, :, None].repeat(len(ink), axis=2), shifts)


def _scale(ink: Ink, strength: float, generator: Generator) -> Ink:
    factors = (1 + strength) ** _signs(len(ink))
    return _resample(ink, np.eye(2)[:, :, None] / factors, np.zeros((2, len(ink))))


def _contrast(ink: Ink, strength: float, generator: Generator) -> Ink:
    return ink * (1 - strength)


def _occlusion(ink: Ink, strength: float, generator: Generator) -> Ink:
    size = round(strength)
    # At a random place in the box of 20 x 20 that MNIST's digits fill.
    tops, lefts = generator.integers(4, 24 - size + 1, (2, len(ink)))
    covered = ink.copy()
    for image, top, left in zip(covered, tops, lefts, strict=True):
        image[top : top + size, left : left + size] = 0
    return covered


def _shear(ink: Ink, strength: float, generator: Generator) -> Ink:
    slants = np.tan(np.radians(strength)) * _signs(len(ink))
    ones, zeros = np.ones(len(ink)), np.zeros(len(ink))
    return _resample(ink, np.array([[ones, zeros], [slants, ones]]), np.zeros((2, len(ink))))


def _outline(ink: Ink, strength: float, generator: Generator) -> Ink:
    inside: Ink = ndimage.grey_erosion(ink, footprint=_CROSS)
    return ink - strength * inside


def _impulse_noise(ink: Ink, strength: float, generator: Generator) -> Ink:
    noise = 255 * generator.integers(0, 2, ink.shape)
    return np.where(generator.random(ink.shape) < strength, noise, ink)


def _brightness(ink: Ink, strength: float, generator: Generator) -> Ink:
    return ink + 255 * strength


def _fog(ink: Ink, strength: float, generator: Generator) -> Ink:
    """Add clouds of several sizes to the image; reduce the contrast to make room for them."""
    fog = np.zeros(ink.shape)
    for size in (1, 2, 4, 8):
        noise = generator.standard_normal(ink.shape)
        fog += size * size * ndimage.gaussian_filter(noise, (0, size, size), mode="wrap")
    fog -= fog.min(axis=(1, 2), keepdims=True)
    fog /= fog.max(axis=(1, 2), keepdims=True)
    return (ink + 255 * strength * fog) / (1 + strength)


def _lines(ink: Ink, strength: float, generator: Generator) -> Ink:
    """Draw lines of ink, a pixel wide, across the box of 20 x 20 that MNIST's digits fill."""
    rows, columns = np.indices(ink.shape[1:])
    lines = ink.copy()
    for _ in range(round(strength)):
        angle = generator.uniform(0, np.pi, (len(ink), 1, 1))
        top, left = generator.uniform(4, 24, (2, len(ink), 1, 1))
        distance = (rows - top) * np.cos(angle) - (columns - left) * np.sin(angle)
        lines = np.maximum(lines, 255 * np.clip(1 - np.abs(distance), 0, 1))
    return lines


def _stripe(ink: Ink, strength: float, generator: Generator) -> Ink:
    width = round(strength)
    striped = ink.copy()
    lefts = generator.integers(4, 24 - width + 1, len(ink))
    for index, left in enumerate(lefts):
        image = striped[index] if index % 2 else striped[index].T
        image[:, left : left + width] = 255 - image[:, left : left + width]
    return striped


def _motion_blur(ink: Ink, strength: float, generator: Generator) -> Ink:
    """Average over a straight motion, in the frequency domain."""
    height, width = ink.shape[1:]
    angles = generator.uniform(0, np.pi, (len(ink), 1, 1))
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    cycles = strength * (rows * np.sin(angles) + columns * np.cos(angles))
    return np.fft.irfft2(np.fft.rfft2(ink) * np.sinc(cycles), (height, width))


def _pixelation(ink: Ink, strength: float, generator: Generator) -> Ink:
    cells = (np.arange(ink.shape[1]) / strength).astype(int)
    same = (cells[:, None] == cells).astype(ink.dtype)
    averages: Ink = same / same.sum(axis=1)
    return averages @ ink @ averages


_CROSS = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]])


def _repeat(step: Callable[..., Ink], ink: Ink, strength: float, generator: Generator) -> Ink:
    """Move the edges of strokes by whole pixels, and by the rest by a mix of two images."""
    whole, rest = divmod(strength, 1)
    for _ in range(int(whole)):
        ink = step(ink, footprint=_CROSS)
    return (1 - rest) * ink + rest * step(ink, footprint=_CROSS)


_thinning = partial(_repeat, ndimage.grey_erosion)
_thickening = partial(_repeat, ndimage.grey_dilation)


def _signs(count: int) -> NDArray[np.int64]:
    """Return 1 and -1 in turn: half of the images change in each direction."""
    return 1 - 2 * (np.arange(count) % 2)


def _resample(ink: Ink, matrices: Ink, shifts: Ink) -> Ink:
    """Resample images by maps (2, 2, N) and shifts (2, N) from the output to the input."""
    count, height, width = ink.shape
    center = np.array([height - 1, width - 1]) / 2
    points = np.indices((height, width)).reshape(2, -1) - center[:, None]
    sources = np.einsum("abn,bp->anp", matrices, points) + center[:, None, None]
    sources += shifts[:, :, None]
    indices = np.broadcast_to(np.arange(count)[:, None], sources.shape[1:])
    resampled = ndimage.map_coordinates(ink, [indices, *sources], order=1)
    return np.reshape(resampled, ink.shape)


CORRUPTIONS = (
    Corruption("rotation", "degrees, in both directions", (10, 20, 30, 40, 50), _rotation),
    Corruption("shear", "degrees, in both directions", (10, 20, 30, 35, 40), _shear),
    Corruption("shift", "pixels, in any direction", (1, 2, 3, 4, 5), _shift),
    Corruption("scale", "share, larger or smaller", (0.1, 0.2, 0.3, 0.4, 0.5), _scale),
    Corruption("thinner strokes", "pixels per side", (0.25, 0.5, 0.75, 1, 1.25), _thinning),
    Corruption("thicker strokes", "pixels per side", (0.5, 1, 1.5, 2, 2.5), _thickening),
    Corruption("outline", "share of the inside lost", (0.2, 0.4, 0.6, 0.8, 1), _outline),
    Corruption("noise", "standard deviation, ink is 1", (0.1, 0.2, 0.3, 0.4, 0.5), _noise),
    Corruption(
        "impulse noise", "share of the pixels", (0.05, 0.1, 0.15, 0.2, 0.25), _impulse_noise
    ),
    Corruption("contrast", "share of the ink lost", (0.2, 0.4, 0.6, 0.8, 0.9), _contrast),
    Corruption(
        "brightness", "added to each pixel, ink is 1", (0.2, 0.4, 0.6, 0.7, 0.8), _brightness
    ),
    Corruption("fog", "its maximum, ink is 1", (0.5, 1, 1.5, 2, 2.5), _fog),
    Corruption("occlusion", "side of the square, pixels", (4, 6, 8, 10, 12), _occlusion),
    Corruption("lines", "number", (1, 2, 3, 4, 5), _lines),
    Corruption("inverted stripe", "width, pixels", (2, 4, 6, 8, 10), _stripe),
    Corruption("blur", "standard deviation, pixels", (0.5, 1, 1.5, 2, 2.5), _blur),
    Corruption("motion blur", "length, pixels", (3, 4.5, 6, 7.5, 9), _motion_blur),
    Corruption("pixelation", "side of a coarse pixel", (1.5, 2, 2.5, 3, 3.5), _pixelation),
)


def corrupt(
    corruption: Corruption, images: NDArray[np.uint8], strength: float
) -> NDArray[np.uint8]:
    """Return corrupted copies of images (N, 28, 28), the same in each call."""
    generator = np.random.default_rng(0)
    corrupted = corruption.apply(images.astype(np.float32), strength, generator)
    return np.clip(np.rint(corrupted), 0, 255).astype(np.uint8)
