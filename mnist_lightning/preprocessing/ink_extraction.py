"""From an image to the ink of its digits: remove light, paper, specks and lines."""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFilter, ImageOps

from mnist_lightning.preprocessing import components
from mnist_lightning.preprocessing.line_removal import remove_lines

Gray = NDArray[np.float32]

WORKING_SIDE = 800  # pixels, the longer side of the reduced image that is searched
THUMBNAIL_SIDE = 64  # pixels, the longer side of the thumbnail that separates paper from strokes
# Strokes are narrower than this share of the image's shorter side; shadows are wider.
MAX_STROKE = 0.22
MAX_STROKE_CLOSE_CROP = 0.5  # the same if strokes touch the border, as in a close crop
UNIFORM = 2  # of 255; even paper varies by no more at the border of the image
MAX_BETWEEN = 0.03  # of an image on even paper is neither paper nor ink, but the edge of a stroke
MIN_TABLE_BORDER = 0.95  # of the image's border is table, if a sheet on a table is shown
MIN_CONTRAST = 0.12  # of the paper's brightness; a lower contrast is not ink
MIN_BRIGHTNESS = 64  # of 255: darker paper is treated as this bright


class DigitCrop(NamedTuple):
    """The ink of one digit, cropped from an image.

    Attributes:
        ink: (H, W) uint8, 0 for paper, 255 for a stroke's full strength; only the digit's ink.
        dark: whether the ink was darker than the paper.
        box: left, top, right and bottom (ends excluded) in pixels of the upright image.
        wide: whether the digit is so wide that it may be several touching digits.
    """

    ink: NDArray[np.uint8]
    dark: bool
    box: tuple[int, int, int, int]
    wide: bool


def extract_digits(image: Image.Image, multiple: bool | None = False) -> list[DigitCrop]:
    """Extract the ink of the digits in an image, for any paper and light.

    Args:
        image: of any size, mode and orientation.
        multiple: whether to look for several digits, in reading order. None: only if they are
            obvious.

    Raises:
        ValueError: the image contains no digit.
    """
    if 0 in image.size:
        raise ValueError(f"the image is empty: {image.width}x{image.height} pixels")
    image = upright(image)
    for view in _views(_reduce_huge(image)):
        dark = _is_dark(view.gray)
        strength = _ink_strength(view.gray, dark)
        full = _full_strength(strength)
        if full >= MIN_CONTRAST:
            break
    else:
        raise ValueError("no digit in the image: its contrast is too low")
    ink = remove_lines(np.clip(strength / full, 0, 1))
    padded = np.pad(ink, 1)
    scale = max(image.size) / view.side
    crops = []
    for digit in components.segment_digits(ink, multiple):
        sides = zip((view.left, view.top) * 2, digit.box, strict=True)
        left, top, right, bottom = (round((start + side) * scale) for start, side in sides)
        box = left, top, right, bottom
        crops.append(DigitCrop(_crop(padded, digit), dark, box, digit.wide))
    return crops


def _crop(padded: Gray, digit: components.DigitComponents) -> NDArray[np.uint8]:
    """Crop the ink of one digit, with one pixel around it for the faint edges of strokes.

    Args:
        padded: the ink of the image, with one pixel of paper around it.
        digit: the digit.
    """
    from scipy import ndimage

    left, top, right, bottom = digit.box
    widened = ndimage.binary_dilation(np.pad(digit.mask, 1), np.ones((3, 3)))
    ink = padded[top : bottom + 2, left : right + 2]
    return np.asarray(np.rint(255 * ink * widened), dtype=np.uint8)


def upright(image: Image.Image, in_place: bool = False) -> Image.Image:
    """Rotate an image as its Exif orientation says; `in_place` saves the memory of a second one."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about each tag that is not a number
            if image.getexif().get(ExifTags.Base.Orientation) in range(2, 9):
                if not in_place:
                    return ImageOps.exif_transpose(image)
                ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # the Exif data is damaged, the pixels are not
        pass
    return image


def _reduce_huge(image: Image.Image) -> Image.Image:
    """Reduce a huge image, so that its copies fit in memory."""
    factor = max(image.size) // (2 * WORKING_SIDE)
    if factor < 2:
        return image
    if image.mode.startswith("I;16"):  # Pillow does not reduce this mode
        height, width = image.height // factor, image.width // factor
        values = np.asarray(image)[: height * factor, : width * factor]
        blocks = values.reshape(height, factor, width, factor)
        return Image.fromarray(blocks.mean(axis=(1, 3), dtype=np.float32))
    if image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK", "I", "F"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image.reduce(factor)


class View(NamedTuple):
    """One grayscale version of an image.

    Attributes:
        gray: brightness (H, W), of the image or a part of it.
        left: the part's first column, in pixels of the whole.
        top: the part's first row.
        side: the longer side of the whole.
    """

    gray: Gray
    left: int
    top: int
    side: int


def _views(image: Image.Image) -> Iterator[View]:
    """Yield views of an image in the working size; the caller stops when the contrast is enough.

    They are: the sheet alone, if the image shows the table too; the whole; and each color, because
    red ink can be as bright as green paper.
    """
    whole = _reduce(gray_of(image))
    sheet = _find_sheet(whole)
    if sheet is not None:
        yield sheet
    yield View(whole, 0, 0, max(whole.shape))
    if image.mode in ("RGB", "RGBA", "CMYK", "P", "YCbCr", "LAB", "HSV"):
        for color in image.convert("RGB").split():
            yield View(_reduce(gray_of(color)), 0, 0, max(whole.shape))


def gray_of(image: Image.Image) -> Gray:
    """Return the brightness of each pixel, (H, W) from 0 to 255, of an image in any mode."""
    if image.has_transparency_data and not _is_opaque(image):
        # Black or white paper, whichever has the higher contrast.
        colors = image.convert("RGBA")
        shade, alpha = np.asarray(colors.convert("L")), np.asarray(colors.getchannel("A"))
        light = (shade * (alpha / 255)).sum() > 127 * (alpha / 255).sum()
        paper = Image.new("RGBA", colors.size, "black" if light else "white")
        image = Image.alpha_composite(paper, colors)
    elif image.mode.startswith(("I", "F")):  # 16 bits and more: Pillow would clip them
        values = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0).clip(0, None)
        white = next((level for level in (1, 255) if values.max() <= level), values.max())
        return np.rint(values * np.float32(255 / white))
    return np.asarray(image.convert("L"), dtype=np.float32)


def _is_opaque(image: Image.Image) -> bool:
    """Return whether an image is RGBA but fully opaque, as an HTML canvas saves it."""
    return image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255)


def _reduce(gray: Gray, side: int = WORKING_SIDE) -> Gray:
    """Reduce an image so that its longer side has at most `side` pixels."""
    height, width = gray.shape
    scale = side / max(height, width)
    if scale >= 1:
        return gray
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(gray).resize(size, Image.Resampling.BOX), dtype=np.float32)


def _find_sheet(gray: Gray) -> View | None:
    """Return the sheet in an image that shows the table too; None if there is none."""
    low, high = np.percentile(gray, (1, 99))
    bright = gray > (low + high) / 2
    bright_border = (border_of(gray) > (low + high) / 2).mean()
    if 1 - MIN_TABLE_BORDER < bright_border <= MIN_TABLE_BORDER:
        return None
    inside = bright if bright_border <= 0.5 else ~bright
    spans = []
    for axis in (1, 0):
        filled = np.flatnonzero(inside.mean(axis=axis) > 0.4)
        if len(filled) == 0:
            return None
        first, last = int(filled[0]), int(filled[-1]) + 1
        rim = 1 + (last - first) // 50
        spans.append(slice(first + rim, max(last - rim, first + rim + 1)))
    rows, columns = spans
    # A sheet is large, and mostly paper; a thick stroke is neither.
    paper = inside[rows, columns]
    large = paper.size > 0.2 * inside.size and min(paper.shape) > 0.3 * max(paper.shape)
    if paper.mean() <= 0.8 or not large:
        return None
    return View(gray[rows, columns], columns.start, rows.start, max(gray.shape))


def _paper(gray: Gray, dark_ink: bool) -> Gray:
    """Estimate the brightness (H, W) that the paper alone would have.

    A morphological closing (for light ink an opening) of a thumbnail: it removes what is as narrow
    as a stroke, and keeps shadows. Paper without shadows, as on a drawing area, has the brightness
    of its border: then strokes may be of any width.
    """
    from scipy import ndimage

    if (level := _even_paper(gray)) is not None:
        return np.full_like(gray, level)
    sign = np.float32(1 if dark_ink else -1)  # an opening is the closing of the negative
    thumbnail = sign * _reduce(gray, THUMBNAIL_SIDE)
    outside = _outside(thumbnail)
    stroke = MAX_STROKE if outside == -np.inf else MAX_STROKE_CLOSE_CROP
    size = max(3, round(stroke * min(thumbnail.shape)) | 1)
    filled = ndimage.maximum_filter(thumbnail, size, mode="constant", cval=outside)
    filled = sign * ndimage.minimum_filter(filled, size, mode="constant", cval=np.inf)
    rounded = Image.fromarray(np.clip(np.rint(filled), 0, 255).astype(np.uint8))
    smooth = rounded.filter(ImageFilter.GaussianBlur(size / 4))
    height, width = gray.shape
    return np.asarray(smooth.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def _even_paper(gray: Gray) -> np.float32 | None:
    """Return the brightness of paper without shadows; None if there may be shadows.

    The border and most of the image have one brightness, and almost all of the rest is ink.
    """
    border = border_of(gray)
    level: np.float32 = border.max()
    if level - border.min() > UNIFORM:
        return None
    distance = np.abs(gray - level)
    paper, ink = distance <= UNIFORM, distance > distance.max() / 2
    is_even = paper.mean() > 0.5 and paper.mean() + ink.mean() >= 1 - MAX_BETWEEN
    return level if is_even else None


def _outside(gray: Gray) -> float:
    """Return the value outside an image with dark ink: the paper's, if strokes touch the border.

    In that case, almost all of the border is either paper or ink; a shadow has values in between.
    """
    low, high = np.percentile(gray, (1, 99))
    border = (border_of(gray) - low) / max(high - low, 1)
    inked, between = (border < 0.25).mean(), ((border >= 0.25) & (border <= 0.75)).mean()
    if 0.01 < inked < 0.6 and between < 0.2:
        paper = border_of(gray)[border > 0.75]
        return float(np.median(paper)) if len(paper) else -np.inf
    return -np.inf


def border_of(gray: Gray) -> Gray:
    """Return the pixels of an image's border, the corners twice."""
    return np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])


def _is_dark(gray: Gray) -> bool:
    """Return whether the ink is darker than the paper, to which most of the border belongs."""
    low, middle, high = np.percentile(gray, (0.5, 50, 99.5))
    return bool(np.median(border_of(gray)) + middle >= low + high)


def _ink_strength(gray: Gray, dark_ink: bool) -> Gray:
    """Return the ink at each pixel: the share of the paper's light that it absorbs, 0 to 1."""
    paper = _paper(gray, dark_ink)
    if dark_ink:
        strength = (paper - gray) / np.maximum(paper, MIN_BRIGHTNESS)
    else:
        strength = (gray - paper) / np.maximum(255 - paper, MIN_BRIGHTNESS)
    return np.clip(strength, 0, 1).astype(np.float32)


def _full_strength(strength: Gray) -> float:
    """Return the strength of the ink in the cores of strokes, rather than of single pixels."""
    height, width = strength.shape
    core = Image.fromarray((strength * 255).astype(np.uint8))
    if min(height, width) > 4 * THUMBNAIL_SIDE:
        core = core.filter(ImageFilter.BoxBlur(1))
    values = np.asarray(core, dtype=np.float32) / 255
    inked = values[values > 0.5 * values.max()]
    return float(np.median(inked)) if len(inked) else 0.0
