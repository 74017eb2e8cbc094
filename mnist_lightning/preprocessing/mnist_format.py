"""MNIST's format: the only owner of its size and centering.

Images are arrays of ink, uint8, 0 for paper and 255 for full ink, as in MNIST's files.
Source of the format: Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten
digits": each digit scaled to fit a 20x20 box keeping its aspect, then placed in a 28x28 field
so that its center of mass is at the field's center.
"""

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mnist_lightning.errors import UserError
from mnist_lightning.files import read_bounded
from mnist_lightning.preprocessing import image_limits, ink_extraction, paper_removal

VERSION = 3  # of the preprocessing: increases when the same image gives other 28x28 pixels
SIZE = 28
BOX = 20
# 43 % of MNIST's inked pixels (above 40 of 255) are white (250 and more): mean over 20,000 training
# images.
WHITE_SHARE, INKED_LEVEL = 0.43, 40

MAX_PIXELS = 120_000_000  # enough for phone cameras; several copies fit in memory
# JPEG's own limit. An image of 120 million rows of one pixel takes 11 s, a square one 2 s.
MAX_SIDE = 65_535
MAX_BYTES = 4 * MAX_PIXELS + 1_000_000  # of a file: uncompressed, with metadata

# The usual formats of photos. Pillow knows more, as PostScript, for which it starts a program.
FORMATS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]

Ink = NDArray[np.uint8]
FloatInk = NDArray[np.float32]  # the same, not rounded
AnyInk = TypeVar("AnyInk", Ink, FloatInk)


class TooLargeError(ValueError):
    """An image exceeds the limit of pixels or bytes."""


def from_array(array: NDArray[Any]) -> Image.Image:
    """Convert an array to an image.

    Args:
        array: (H, W), or with a channel (H, W, 1) or (1, H, W), or in color (H, W, 3) or
            (H, W, 4); integers from 0 to 255, or floats from 0 to 1.

    Raises:
        ValueError: the array has another form.
    """
    pixels = array
    while pixels.ndim > 2 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    colored = pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    if pixels.dtype.kind not in "buif" or pixels.size == 0 or not (pixels.ndim == 2 or colored):
        raise ValueError(
            f"invalid image array of shape {array.shape} and type {array.dtype}: "
            "expected numbers of shape (H, W) or (H, W, 3)"
        )
    white = 1 if pixels.dtype == bool or np.issubdtype(pixels.dtype, np.floating) else 255
    if not (pixels.min() >= 0 and pixels.max() <= white):
        raise ValueError(
            f"invalid image array with values from {pixels.min():.4g} to {pixels.max():.4g}: "
            f"expected 0 to {white} for {pixels.dtype}"
        )
    return Image.fromarray(np.rint(pixels * (255 / white)).astype(np.uint8))


def read(source: Path | BinaryIO) -> Image.Image:
    """Read an image from a file that may be invalid or hostile, and rotate it upright.

    Args:
        source: a path, or an open file. The first frame of an animation is read.

    Raises:
        TooLargeError: it has more than `MAX_PIXELS` or `MAX_BYTES`.
        ValueError: it is not an image, is damaged, or costs too much to decode.
        OSError: the file cannot be opened.
    """
    content = read_content(source)
    image_limits.check(content)
    try:
        # The warnings are about sizes, which are checked here, and oddities.
        with warnings.catch_warnings(action="ignore"):
            image = Image.open(BytesIO(content), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
                raise Image.DecompressionBombError
            image.load()
            ink_extraction.upright(image, in_place=True)
    except UnidentifiedImageError:
        if content[4:8] == b"ftyp":
            raise ValueError("HEIC and AVIF are not supported; save the image as JPEG") from None
        raise ValueError("not an image of a supported format") from None
    except Image.DecompressionBombError:
        raise TooLargeError(
            f"too large: the limit is {MAX_PIXELS // 10**6} megapixels, {MAX_SIDE:,} pixels a side"
        ) from None
    except MemoryError:
        raise TooLargeError("too large: it does not fit in memory") from None
    except Exception as error:  # decoders raise anything on damaged files
        raise ValueError(f"the image is damaged: {error}") from None
    if image.mode == "P" and image.palette is None:  # Pillow's conversion would fail later
        raise ValueError("the image is damaged: it has no palette")
    return image


def read_content(source: Path | BinaryIO) -> bytes:
    """Read an image file.

    Raises:
        TooLargeError: it has more than `MAX_BYTES`.
        OSError: it cannot be opened.
    """
    too_large = TooLargeError(f"too large: the limit is {MAX_BYTES // 10**6} megabytes")
    if isinstance(source, Path):
        try:
            return read_bounded(source, MAX_BYTES)
        except UserError:
            raise too_large from None
    with source as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise too_large
    return content


class DigitImage(NamedTuple):
    """A digit of an image, in MNIST's format.

    Attributes:
        ink: (28, 28), as the makers of MNIST would have produced it.
        dark: whether the ink was darker than the paper.
        box: left, top, right and bottom (ends excluded) in pixels of the upright image.
        wide: whether the digit is so wide that it may be several touching digits.
        cell: its row and column in a form, from 1; None if the image is not a form.
    """

    ink: Ink
    dark: bool
    box: tuple[int, int, int, int]
    wide: bool
    cell: tuple[int, int] | None = None


def find_digits(image: Image.Image, multiple: bool | None = None) -> list[DigitImage]:
    """Find the digits in an image, darker or lighter than the paper, in reading order.

    An image of MNIST's size with a black border is already in the format, and is not changed.

    Args:
        image: of any size and mode.
        multiple: whether to look for several digits. None: only if they are obvious.

    Raises:
        ValueError: the image contains no digit.
    """
    if image.size == (SIZE, SIZE):
        gray = ink_extraction.gray_of(image)
        if np.median(paper_removal.border_of(gray)) == 0:
            if gray.max() < 255 * ink_extraction.MIN_CONTRAST:
                raise ValueError("no digit in the image: it is blank")
            return [DigitImage(gray.astype(np.uint8), False, (0, 0, SIZE, SIZE), False)]
    crops = ink_extraction.extract_digits(image, multiple)
    return [DigitImage(from_ink(crop.ink), *crop[1:]) for crop in crops]


def png(ink: Ink) -> bytes:
    """Return the content of a PNG file with (H, W) ink."""
    content = BytesIO()
    Image.fromarray(ink).save(content, format="png")
    return content.getvalue()


def from_image(image: Image.Image) -> Ink:
    """Convert an image of one digit to MNIST's (28, 28) ink.

    Raises:
        ValueError: the image contains no digit.
    """
    return find_digits(image, multiple=False)[0].ink


def crop_to_ink(ink: Ink) -> Ink:
    """Crop (H, W) ink to the smallest rectangle with all inked pixels.

    Raises:
        ValueError: there is no ink.
    """
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if len(rows) == 0:
        raise ValueError("no ink in the image")
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def fit_to_box(ink: AnyInk, box: int = BOX) -> AnyInk:
    """Scale (H, W) ink to `box` pixels on its longer side, with its aspect ratio.

    Reduction averages by area, as the makers of MNIST did; enlargement interpolates. Bytes are
    rounded after each of two passes, whose order Pillow chooses; floats are not.
    """
    height, width = ink.shape
    scale = box / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(ink).resize(size, method))


def stretch(ink: Ink | FloatInk) -> Ink:
    """Stretch the gray levels until the share of white among the inked pixels is as in MNIST.

    Without it, strokes of a thin pen, averaged by area, would be gray.
    """
    inked = ink[ink > INKED_LEVEL / 255 * ink.max()]
    white = np.quantile(inked, 1 - WHITE_SHARE)
    return np.asarray(np.rint(np.clip(ink * (255 / white), 0, 255)), dtype=np.uint8)


def center_by_mass(ink: Ink, size: int = SIZE) -> Ink:
    """Place (H, W) ink, at most `size` large, in a (size, size) field, by whole pixels.

    The center of mass is at pixel index `size // 2`, or as near as the edges of the ink allow.
    """
    from scipy import ndimage  # takes 0.2 s to import

    margins = []
    for center, side in zip(ndimage.center_of_mass(ink), ink.shape, strict=True):
        before = int(np.clip(round(size // 2 - center), 0, size - side))
        margins.append((before, size - side - before))
    return np.pad(ink, margins)


def from_ink(ink: Ink) -> Ink:
    """Convert (H, W) ink of one digit, of any pen, to MNIST's (28, 28)."""
    return center_by_mass(stretch(fit_to_box(crop_to_ink(ink).astype(np.float32))))


def from_ink_unstretched(ink: Ink) -> Ink:
    """Convert (H, W) ink of one digit to MNIST's (28, 28), without a change of its gray levels."""
    return center_by_mass(fit_to_box(crop_to_ink(ink)))
