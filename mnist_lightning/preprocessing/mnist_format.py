"""MNIST's format: the only owner of its size, centering, mean and standard deviation.

Pictures are arrays of ink, uint8, 0 for paper and 255 for full ink, as in MNIST's files.
Source of the format: Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten
digits": each digit scaled to fit a 20x20 box keeping its aspect, then placed in a 28x28 field
so that its center of mass is at the field's center.
"""

import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mnist_lightning.errors import UserError
from mnist_lightning.files import read_bounded
from mnist_lightning.preprocessing import image_limits
from mnist_lightning.preprocessing.ink_extraction import LEAST_CONTRAST, edge_of, gray_of, trace

if TYPE_CHECKING:  # torch takes a second to import, which finding a digit does not need
    from torch import Tensor

VERSION = 2  # counts the changes that make another 28x28 of the same picture
SIZE = 28
BOX = 20
# Mean and standard deviation of MNIST's 60,000 training images scaled to [0, 1].
MEAN, STD = 0.1307, 0.3081
PAPER = -MEAN / STD  # what normalized paper is

# Of MNIST's inked pixels (above 40 of 255) 43 % are white (250 and more), on the mean over 20,000
# training images.
WHITE, INKED = 0.43, 40

MOST_PIXELS = 120_000_000  # what telephones make, and what fits in memory several times
# JPEG's own limit. Of 120 million rows of one pixel each the reading takes 11 s, of a square 2 s.
MOST_SIDE = 65_535
MOST_BYTES = 4 * MOST_PIXELS + 1_000_000  # of a file: uncompressed, with notes of the camera

# What people's pictures are. Pillow knows more: PostScript, for which it starts another program.
FORMATS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]

Ink = NDArray[np.uint8]
Fine = NDArray[np.float32]  # the same, not rounded
Kind = TypeVar("Kind", Ink, Fine)


def normalize(pixels: "Tensor") -> "Tensor":
    """Map (B, 28, 28) uint8 images to (B, 1, 28, 28) float32, as networks take them."""
    return pixels.unsqueeze(1).float().sub_(255 * MEAN).div_(255 * STD)


class TooLargeError(ValueError):
    """A picture has more pixels than are read."""


def from_array(array: NDArray[Any]) -> Image.Image:
    """Turn an array into a picture.

    Args:
        array: (H, W), or with a channel (H, W, 1) or (1, H, W), or in color (H, W, 3) or
            (H, W, 4); integers from 0 to 255, or floats from 0 to 1.

    Raises:
        ValueError: it is not of that form.
    """
    pixels = array
    while pixels.ndim > 2 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    colored = pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    if pixels.dtype.kind not in "buif" or pixels.size == 0 or not (pixels.ndim == 2 or colored):
        raise ValueError(
            "one picture is an array (H, W) or (H, W, 3) of numbers; this one is "
            f"{array.shape} of {array.dtype}"
        )
    most = 1 if pixels.dtype == bool or np.issubdtype(pixels.dtype, np.floating) else 255
    if not (pixels.min() >= 0 and pixels.max() <= most):
        raise ValueError(
            f"a picture of {pixels.dtype} goes from 0 to {most}; this array goes from "
            f"{pixels.min():.4g} to {pixels.max():.4g}"
        )
    return Image.fromarray(np.rint(pixels * (255 / most)).astype(np.uint8))


def read(source: Path | BinaryIO) -> Image.Image:
    """Read a picture from a file, with all that may be wrong with one.

    Args:
        source: a path, or an open file. Of an animation the first picture is taken.

    Raises:
        TooLargeError: it has more than `MOST_PIXELS` or `MOST_BYTES`.
        ValueError: it is no picture, a damaged one, or one that costs too much to decode.
        OSError: the file cannot be opened.
    """
    content = _content(source)
    image_limits.check(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, that are looked at here, and oddities
            picture = Image.open(BytesIO(content), formats=FORMATS)
            small_enough = picture.width * picture.height <= MOST_PIXELS
            small_enough &= max(picture.size) <= MOST_SIDE
            if small_enough:
                picture.load()
    except UnidentifiedImageError:
        if content[4:8] == b"ftyp":
            raise ValueError("HEIC and AVIF cannot be read; save it as JPEG") from None
        raise ValueError("no picture that can be read") from None
    except Image.DecompressionBombError:
        small_enough = False
    except MemoryError:
        raise TooLargeError("too large: it does not fit in memory") from None
    except Exception as error:  # a decoder meets whatever a file may hold
        raise ValueError(f"a damaged picture: {error}") from None
    if not small_enough:
        raise TooLargeError(
            f"too large: the most is {MOST_PIXELS // 10**6} megapixels, {MOST_SIDE:,} pixels a side"
        )
    if picture.mode == "P" and picture.palette is None:  # on which Pillow's conversion fails later
        raise ValueError("a damaged picture: it has no palette")
    return picture


def _content(source: Path | BinaryIO) -> bytes:
    too_large = TooLargeError(f"too large: the most is {MOST_BYTES // 10**6} megabytes")
    if isinstance(source, Path):
        try:
            return read_bounded(source, MOST_BYTES)
        except UserError:
            raise too_large from None
    with source as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise too_large
    return content


class Digit(NamedTuple):
    """A digit that was found in a picture.

    Attributes:
        ink: (28, 28), as MNIST's makers would have made it.
        dark: whether its ink was darker than its paper.
        box: left, top, right and bottom (ends excluded) in pixels of the upright picture.
        wide: whether it is so wide that it may be several digits that touch.
    """

    ink: Ink
    dark: bool
    box: tuple[int, int, int, int]
    wide: bool


def find_digits(picture: Image.Image, multiple: bool | None = None) -> list[Digit]:
    """Find the digits in a picture, darker or lighter than their paper, in reading order.

    A picture of MNIST's size on a black field is one already, and is not changed.

    Args:
        picture: of any size and mode.
        multiple: whether there are several digits. None: if that is obvious.

    Raises:
        ValueError: there is no digit in it.
    """
    if picture.size == (SIZE, SIZE):
        gray = gray_of(picture)
        if np.median(edge_of(gray)) == 0:
            if gray.max() < 255 * LEAST_CONTRAST:
                raise ValueError("no digit in the picture: it is blank")
            return [Digit(gray.astype(np.uint8), False, (0, 0, SIZE, SIZE), False)]
    return [Digit(from_ink(found.ink), *found[1:]) for found in trace(picture, multiple)]


def png(ink: Ink) -> bytes:
    """The content of a PNG file of (H, W) ink."""
    content = BytesIO()
    Image.fromarray(ink).save(content, format="png")
    return content.getvalue()


def from_picture(picture: Image.Image) -> Ink:
    """Turn a picture of one digit into MNIST's (28, 28) ink.

    Raises:
        ValueError: there is no digit in it.
    """
    return find_digits(picture, multiple=False)[0].ink


def crop_to_ink(ink: Ink) -> Ink:
    """Cut (H, W) ink down to the smallest rectangle that holds every inked pixel.

    Raises:
        ValueError: there is no ink.
    """
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if len(rows) == 0:
        raise ValueError("no ink in the picture")
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def fit_to_box(ink: Kind, box: int = BOX) -> Kind:
    """Scale (H, W) ink so that its longer side measures `box` pixels, keeping its aspect.

    Reducing weighs by area, as MNIST's makers did; enlarging interpolates. Bytes are rounded after
    each of two passes, whose order is Pillow's to choose; floats are not.
    """
    height, width = ink.shape
    scale = box / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(ink).resize(size, method))


def stretch(ink: Ink | Fine) -> Ink:
    """Stretch gray levels so that as many of the inked pixels are white as in MNIST's pictures.

    A thin pen's strokes, weighed by area, would be but gray.
    """
    inked = ink[ink > INKED / 255 * ink.max()]
    white = np.quantile(inked, 1 - WHITE)
    stretched: Ink = np.rint(np.clip(ink * (255 / white), 0, 255)).astype(np.uint8)
    return stretched


def center_by_mass(ink: Ink, size: int = SIZE) -> Ink:
    """Place (H, W) ink, no larger than `size`, in a (size, size) field, by whole pixels.

    The center of mass lands on pixel index `size // 2`, or as near as the ink's edges allow.
    """
    height, width = ink.shape
    mass = ink.sum(dtype=np.float64)
    center_y = ink.sum(axis=1) @ np.arange(height) / mass
    center_x = ink.sum(axis=0) @ np.arange(width) / mass
    top = int(np.clip(round(size // 2 - center_y), 0, size - height))
    left = int(np.clip(round(size // 2 - center_x), 0, size - width))
    field = np.zeros((size, size), dtype=np.uint8)
    field[top : top + height, left : left + width] = ink
    return field


def from_ink(ink: Ink) -> Ink:
    """Turn (H, W) ink of one digit, of whatever pen, into MNIST's (28, 28)."""
    return center_by_mass(stretch(fit_to_box(crop_to_ink(ink).astype(np.float32))))


def to_digit(ink: Ink) -> Ink:
    """Turn (H, W) ink of one digit into (28, 28) as MNIST's makers did, its gray levels kept."""
    return center_by_mass(fit_to_box(crop_to_ink(ink)))
