"""Separate ink from paper: the brightness of the paper under any light, and the ink's strength."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Gray = NDArray[np.float32]

THUMBNAIL_SIDE = 64  # pixels, the longer side of the thumbnail that separates paper from strokes
# Strokes are narrower than this share of the image's shorter side; shadows are wider.
MAX_STROKE = 0.22
MAX_STROKE_CLOSE_CROP = 0.5  # the same if strokes touch the border, as in a close crop
UNIFORM = 2  # of 255; even paper varies by no more at the border of the image
MAX_BETWEEN = 0.03  # of an image on even paper is neither paper nor ink, but the edge of a stroke
MAX_CLOSE_CROP = 0.95  # of the border is paper, or ink, in a close crop
BLURRED = 24  # pixels of a scan, for each of which the edge of a stroke may be a pixel wider
MIN_FLAT = 0.1  # of a scan has the brightness of the paper
MIN_BRIGHTNESS = 64  # of 255: darker paper is treated as this bright


def reduce(gray: Gray, side: int) -> Gray:
    """Reduce an image so that its longer side has at most `side` pixels."""
    height, width = gray.shape
    scale = side / max(height, width)
    if scale >= 1:
        return gray
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(gray).resize(size, Image.Resampling.BOX), dtype=np.float32)


def _paper(gray: Gray, dark_ink: bool) -> Gray:
    """Estimate the brightness (H, W) that the paper alone would have.

    A morphological closing (for light ink an opening) of a thumbnail: it removes what is as narrow
    as a stroke, and keeps shadows. Paper without shadows, as on a drawing area, has the brightness
    of its border: then strokes may be of any width.
    """
    from scipy import ndimage

    level = _even_paper(gray)
    if level is None:
        level = _flat_paper(gray, dark_ink)
    if level is not None:
        return np.full_like(gray, level)
    sign = np.float32(1 if dark_ink else -1)  # an opening is the closing of the negative
    thumbnail = sign * reduce(gray, THUMBNAIL_SIDE)
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


def _flat_paper(gray: Gray, dark_ink: bool) -> np.float32 | None:
    """Return the brightness of the paper of a scan; None if the image may be a photo.

    Many pixels have exactly the brightness of the paper. In a small image, the others are ink or
    beside ink, in a larger one almost all of them are ink. Strokes may touch the border.
    """
    from scipy import ndimage

    level: np.float32 = gray.max() if dark_ink else gray.min()
    distance = np.abs(gray - level)
    paper, ink = distance <= UNIFORM, distance > distance.max() / 2
    if is_small(gray):
        ink = ndimage.maximum_filter(ink, 3 + 2 * (max(gray.shape) // BLURRED))
    return level if paper.mean() >= MIN_FLAT and (paper | ink).mean() >= 1 - MAX_BETWEEN else None


def is_small(gray: Gray) -> bool:
    """Return whether an image is as small as a scan of one digit."""
    return bool(max(gray.shape) <= THUMBNAIL_SIDE)


def is_small_scan(gray: Gray) -> bool:
    """Return whether an image is small, and not a photo: without shadows."""
    return is_small(gray) and _flat_paper(gray, is_dark(gray)) is not None


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


def is_dark(gray: Gray) -> bool:
    """Return whether the ink is darker than the paper, to which most of the border belongs."""
    low, middle, high = np.percentile(gray, (0.5, 50, 99.5))
    border = border_of(gray)
    bright = (border > (low + high) / 2).mean()
    if not 1 - MAX_CLOSE_CROP < bright < MAX_CLOSE_CROP:
        return bool(
            2 * float(np.median(border)) + float(middle) >= 1.5 * (float(low) + float(high))
        )
    # Strokes of a close crop touch the border, but rarely the corners.
    side = max(1, min(gray.shape) // 6)
    corners = [half[:, ends] for half in (gray[:side], gray[-side:]) for ends in _ends(side)]
    means = [np.mean(values, dtype=np.float64) for values in (corners, gray, border)]
    return bool(np.mean(means) >= (float(low) + float(high)) / 2)


def _ends(size: int) -> tuple[slice, slice]:
    return slice(size), slice(-size, None)


def ink_strength(gray: Gray, dark_ink: bool) -> Gray:
    """Return the ink at each pixel: the share of the paper's light that it absorbs, 0 to 1."""
    paper = _paper(gray, dark_ink)
    if dark_ink:
        strength = (paper - gray) / np.maximum(paper, MIN_BRIGHTNESS)
    else:
        strength = (gray - paper) / np.maximum(255 - paper, MIN_BRIGHTNESS)
    return np.clip(strength, 0, 1).astype(np.float32)


def full_strength(strength: Gray) -> float:
    """Return the strength of the ink in the cores of strokes, rather than of single pixels."""
    height, width = strength.shape
    core = Image.fromarray((strength * 255).astype(np.uint8))
    if min(height, width) > 4 * THUMBNAIL_SIDE:
        core = core.filter(ImageFilter.BoxBlur(1))
    values = np.asarray(core, dtype=np.float32) / 255
    inked = values[values > 0.5 * values.max()]
    return float(np.median(inked)) if len(inked) else 0.0
