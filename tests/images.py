"""Generated images of digits, and comparisons with their pixels in MNIST's format."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from mnist_lightning.data.datasets import DigitData
from mnist_lightning.preprocessing import mnist_format


def draw_seven(size: int = 200, paper: int = 255, ink: int = 0, width: int = 10) -> Image.Image:
    """Draw a handwritten seven with a bar."""
    canvas = Image.new("L", (size, size), paper)
    pen, unit = ImageDraw.Draw(canvas), size / 10
    for line in ([(3, 2.5), (7, 2.5), (4.5, 7.5)], [(4.5, 5), (6.8, 5)]):
        pen.line([(x * unit, y * unit) for x, y in line], fill=ink, width=width, joint="curve")
    return canvas


def draw_blot(frame: int = 255) -> Image.Image:
    """Draw a large filled circle on white paper with a frame."""
    image = ImageOps.expand(Image.new("L", (200, 180), 255), 10, frame)
    ImageDraw.Draw(image).ellipse((50, 40, 160, 150), fill=0)
    return image


def scan(digit: NDArray[np.uint8], side: int, one_bit: bool, margin: int = 0) -> Image.Image:
    """Return a small scan, dark on white, of a digit (28, 28): as high or as wide as `side`."""
    ink = mnist_format.fit_to_box(mnist_format.crop_to_ink(digit), side)
    if one_bit:
        ink = np.where(ink > 100, 255, 0).astype(np.uint8)
    return Image.fromarray(255 - np.pad(ink, margin))


def draw_page(places: list[tuple[int, int]], size: tuple[int, int] = (700, 500)) -> Image.Image:
    """Draw sevens at these places (left, top), each about 90 wide and 112 high within 200 x 200."""
    ink = np.zeros((size[1] + 200, size[0] + 200))
    for left, top in places:
        ink[top : top + 200, left : left + 200] += 255 - to_array(draw_seven())
    return to_image(255 - ink)


def seven_box(place: tuple[int, int]) -> NDArray[np.int64]:
    """Return the box (left, top, right, bottom) of a seven on such a page."""
    rows, columns = np.nonzero(to_array(draw_seven()) < 127)
    left, top = place
    box = [left + columns.min(), top + rows.min(), left + columns.max() + 1, top + rows.max() + 1]
    return np.array(box)


def to_array(image: Image.Image) -> NDArray[np.float64]:
    """Return the pixels of an image as numbers."""
    return np.asarray(image).astype(float)


def to_image(values: NDArray[np.floating]) -> Image.Image:
    """Return an image of rounded values."""
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    """Return the content of a file with an image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


SEVEN = mnist_format.from_image(draw_seven())


def gives_seven(image: Image.Image) -> bool:
    """Return whether an image gives the same 28x28 pixels as the drawn seven."""
    return is_seven(mnist_format.from_image(image))


def is_seven(ink: NDArray[np.uint8], tolerance: float = 0.1) -> bool:
    """Return whether ink equals the seven, up to a share of the ink and a shift of one pixel.

    The rounding of the center of mass causes the shift.
    """
    return bool(shifted_difference(ink, SEVEN) <= tolerance * SEVEN.mean())


def shifted_difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Return the mean difference of two images, up to a shift of one pixel."""
    signed = first.astype(int)
    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return float(min(np.abs(np.roll(signed, shift, (0, 1)) - second).mean() for shift in shifts))


def write_idx(path: Path, array: torch.Tensor) -> None:
    """Write bytes in MNIST's format."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(header + array.to(torch.uint8).numpy().tobytes())


def write_arrays(folder: Path, data: DigitData) -> Path:
    """Write a data set as four files in MNIST's format; return the folder."""
    folder.mkdir()
    write_idx(folder / "train-images-idx3-ubyte", data.train_images)
    write_idx(folder / "train-labels-idx1-ubyte", data.train_labels)
    write_idx(folder / "t10k-images-idx3-ubyte", data.test_images)
    write_idx(folder / "t10k-labels-idx1-ubyte", data.test_labels)
    return folder
