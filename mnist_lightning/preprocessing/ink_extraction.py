"""From an image to the ink of its digits: remove light, paper, specks and lines.

Needs NumPy and Pillow only.
"""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFilter, ImageOps

from mnist_lightning.preprocessing import components
from mnist_lightning.preprocessing.line_removal import without_lines

Gray = NDArray[np.float32]

WORKING = 800  # the longer side of what is looked at, in pixels
THUMB = 64  # and of what tells paper from strokes
# Strokes are narrower than this share of a picture's shorter side; shadows are wider.
STROKE = 0.22
CLOSE_STROKE = 0.5  # the same where strokes run into the border, as in a close crop
TABLE = 0.95  # of a picture's edge, where it shows what the sheet lies on
LEAST_CONTRAST = 0.12  # of the paper's brightness; what stands out less is no ink
DIM = 64  # of 255: paper darker than that has no brightness to speak of


class Trace(NamedTuple):
    """The ink of one digit.

    Attributes:
        ink: (H, W) uint8, 0 for paper, 255 for a stroke's full strength; nothing but the digit.
        dark: whether the ink was darker than its paper.
        box: left, top, right and bottom (ends excluded) in pixels of the upright picture.
        wide: whether it is so wide that it may be several digits that touch.
    """

    ink: NDArray[np.uint8]
    dark: bool
    box: tuple[int, int, int, int]
    wide: bool


def trace(picture: Image.Image, multiple: bool | None = False) -> list[Trace]:
    """Find the ink of the digits in a picture, whatever its paper and its light.

    Args:
        picture: of any size, mode and orientation.
        multiple: whether there are several digits, which are given in reading order. None: if
            that is obvious.

    Raises:
        ValueError: there is none.
    """
    if 0 in picture.size:
        raise ValueError(f"the picture is empty: {picture.width}x{picture.height}")
    picture = upright(picture)
    for view in _views(_less_huge(picture)):
        gray = view.gray
        dark = _is_dark(gray)
        taken = _strength(gray, dark)
        full = _level(taken)
        if full >= LEAST_CONTRAST:
            break
    else:
        raise ValueError("no digit in the picture: nothing stands out from its paper")
    ink = without_lines(np.clip(taken / full, 0, 1))
    wide = np.pad(ink, 1)
    scale = max(picture.size) / view.side
    return [
        Trace(
            _cut_out(wide, digit),
            dark,
            (
                round((view.left + digit.box[0]) * scale),
                round((view.top + digit.box[1]) * scale),
                round((view.left + digit.box[2]) * scale),
                round((view.top + digit.box[3]) * scale),
            ),
            digit.wide,
        )
        for digit in components.find_digits(ink, multiple)
    ]


def _cut_out(wide: Gray, digit: components.Digit) -> NDArray[np.uint8]:
    """The ink of a digit alone, with a pixel around it: a stroke's edge is fainter than it.

    Args:
        wide: the picture's ink, with a pixel of paper around it.
        digit: which of it.
    """
    left, top, right, bottom = digit.box
    place = slice(top, bottom + 2), slice(left, right + 2)
    mask = Image.fromarray(np.pad(digit.mask, 2).astype(np.uint8))
    near = np.asarray(mask.filter(ImageFilter.MaxFilter(3)))[1:-1, 1:-1]
    alone: NDArray[np.uint8] = np.rint(255 * wide[place] * near).astype(np.uint8)
    return alone


def upright(picture: Image.Image) -> Image.Image:
    """Turn a picture as its camera was held."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of tags that are no numbers, one by one
            turned = picture.getexif().get(ExifTags.Base.Orientation) in range(2, 9)
            return ImageOps.exif_transpose(picture) if turned else picture
    except Exception:  # notes of the camera that cannot be read: the pixels can
        return picture


def _less_huge(picture: Image.Image) -> Image.Image:
    """Reduce a huge picture, so that what is made of it fits in memory."""
    factor = max(picture.size) // (2 * WORKING)
    if factor < 2:
        return picture
    if picture.mode.startswith("I;16"):  # which Pillow does not reduce
        height, width = picture.height // factor, picture.width // factor
        values = np.asarray(picture)[: height * factor, : width * factor]
        blocks = values.reshape(height, factor, width, factor)
        return Image.fromarray(blocks.mean(axis=(1, 3), dtype=np.float32))
    if picture.mode not in ("L", "LA", "RGB", "RGBA", "CMYK", "I", "F"):
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    return picture.reduce(factor)


class View(NamedTuple):
    """A way to look at a picture.

    Attributes:
        gray: brightness (H, W), of the picture or a part of it.
        left: where the part begins, across,
        top: and down.
        side: how long the picture's longer side is to it.
    """

    gray: Gray
    left: int
    top: int
    side: int


def _views(picture: Image.Image) -> Iterator[View]:
    """Ways to look at a picture, in a working size, until something stands out.

    The sheet alone, where the picture shows what it lies on, too; the whole; and each color: red
    ink on green paper has no brightness of its own.
    """
    whole = _reduced(gray_of(picture))
    sheet = _sheet(whole)
    if sheet is not None:
        yield sheet
    yield View(whole, 0, 0, max(whole.shape))
    if picture.mode in ("RGB", "RGBA", "CMYK", "P", "YCbCr", "LAB", "HSV"):
        for color in picture.convert("RGB").split():
            yield View(_reduced(gray_of(color)), 0, 0, max(whole.shape))


def gray_of(picture: Image.Image) -> Gray:
    """The brightness of each pixel, (H, W) from 0 to 255, whatever the picture's mode."""
    if picture.has_transparency_data and not _is_opaque(picture):
        # On the paper from which most of it stands out.
        colors = picture.convert("RGBA")
        shade, alpha = np.asarray(colors.convert("L")), np.asarray(colors.getchannel("A"))
        light = (shade * (alpha / 255)).sum() > 127 * (alpha / 255).sum()
        paper = Image.new("RGBA", colors.size, "black" if light else "white")
        picture = Image.alpha_composite(paper, colors)
    elif picture.mode.startswith(("I", "F")):  # 16 bits and more, which Pillow would clip
        values = np.nan_to_num(np.asarray(picture, dtype=np.float32), posinf=0).clip(0, None)
        most = next((most for most in (1, 255) if values.max() <= most), values.max())
        return np.rint(values * np.float32(255 / most))
    return np.asarray(picture.convert("L"), dtype=np.float32)


def _is_opaque(picture: Image.Image) -> bool:
    """Tell a canvas's picture, which has transparency but for show."""
    return picture.mode == "RGBA" and picture.getchannel("A").getextrema() == (255, 255)


def _reduced(gray: Gray) -> Gray:
    height, width = gray.shape
    scale = WORKING / max(height, width)
    if scale >= 1:
        return gray
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(gray).resize(size, Image.Resampling.BOX), dtype=np.float32)


def _sheet(gray: Gray) -> View | None:
    """The sheet in a picture that shows what it lies on, too; None where there is none."""
    low, high = np.percentile(gray, (1, 99))
    bright = gray > (low + high) / 2
    around = (edge_of(gray) > (low + high) / 2).mean()
    if 1 - TABLE < around <= TABLE:
        return None
    inside = bright if around <= 0.5 else ~bright
    places = []
    for axis in (1, 0):
        filled = np.flatnonzero(inside.mean(axis=axis) > 0.4)
        if len(filled) == 0:
            return None
        first, last = int(filled[0]), int(filled[-1]) + 1
        rim = 1 + (last - first) // 50
        places.append(slice(first + rim, max(last - rim, first + rim + 1)))
    rows, columns = places
    # A sheet is mostly paper, and large; a thick stroke is neither.
    paper = inside[rows, columns]
    large = paper.size > 0.2 * inside.size and min(paper.shape) > 0.3 * max(paper.shape)
    if paper.mean() <= 0.8 or not large:
        return None
    return View(gray[rows, columns], columns.start, rows.start, max(gray.shape))


def _paper(gray: Gray, dark_ink: bool) -> Gray:
    """Estimate the brightness (H, W) that the paper alone would have.

    A closing (for light ink an opening) of a thumbnail: it fills whatever is narrower than a
    stroke can be, and keeps shadows.
    """
    height, width = gray.shape
    scale = THUMB / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Image.fromarray(gray)
    if scale < 1:
        picture = picture.resize(size, Image.Resampling.BOX)
    sign = np.float32(1 if dark_ink else -1)  # an opening is the negative's closing
    thumb = sign * np.asarray(picture)
    beyond = _beyond(thumb)
    stroke = STROKE if beyond == -np.inf else CLOSE_STROKE
    reach = max(3, round(stroke * min(picture.size)) | 1) // 2
    filled = -sign * _greatest(-_greatest(thumb, reach, beyond), reach)
    rounded = Image.fromarray(np.clip(np.rint(filled), 0, 255).astype(np.uint8))
    smooth = rounded.filter(ImageFilter.GaussianBlur((2 * reach + 1) / 4))
    return np.asarray(smooth.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def _greatest(gray: Gray, reach: int, beyond: float = -np.inf) -> Gray:
    """The greatest of the values up to `reach` away from each, down and across.

    Args:
        gray: (H, W).
        reach: in pixels.
        beyond: what lies beyond the border; by default nothing.
    """
    for _ in range(2):
        wide = np.pad(gray, ((reach, reach), (0, 0)), constant_values=beyond)
        gray = np.max([wide[at : at + len(gray)] for at in range(2 * reach + 1)], axis=0).T
    return gray


def _beyond(gray: Gray) -> float:
    """What lies beyond the border of a picture with dark ink: paper, if strokes run into it.

    The border is either paper or ink then, and little of it between; in a shadow much is.
    """
    low, high = np.percentile(gray, (1, 99))
    edge = (edge_of(gray) - low) / max(high - low, 1)
    inked, between = (edge < 0.25).mean(), ((edge >= 0.25) & (edge <= 0.75)).mean()
    if 0.01 < inked < 0.6 and between < 0.2:
        return float(np.median(edge_of(gray)[edge > 0.75])) if (edge > 0.75).any() else -np.inf
    return -np.inf


def edge_of(gray: Gray) -> Gray:
    """The pixels along a picture's border, those of its corners twice."""
    return np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])


def _is_dark(gray: Gray) -> bool:
    """Tell whether the ink is darker than its paper, which is most of a picture, and its edge."""
    low, high = np.percentile(gray, (0.5, 99.5))
    return bool(np.median(edge_of(gray)) + np.median(gray) >= low + high)


def _strength(gray: Gray, dark_ink: bool) -> Gray:
    """How much of the paper's light the ink takes away at each pixel, 0 to 1."""
    bright = _paper(gray, dark_ink)
    if dark_ink:
        taken = (bright - gray) / np.maximum(bright, DIM)
    else:
        taken = (gray - bright) / np.maximum(255 - bright, DIM)
    return np.clip(taken, 0, 1).astype(np.float32)


def _level(taken: Gray) -> float:
    """The strength of the ink itself: that of its strokes' cores, not of single pixels."""
    height, width = taken.shape
    core = Image.fromarray((taken * 255).astype(np.uint8))
    if min(height, width) > 4 * THUMB:
        core = core.filter(ImageFilter.BoxBlur(1))
    values = np.asarray(core, dtype=np.float32) / 255
    inked = values[values > 0.5 * values.max()]
    return float(np.median(inked)) if len(inked) else 0.0
