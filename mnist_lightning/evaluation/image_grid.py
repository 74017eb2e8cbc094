"""Draw many images as one array, in milliseconds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
GAP = 4
LINE = 11  # height of a caption
PAPER = 255


def grid(images: Pixels, columns: int, captions: Sequence[str] = (), zoom: int = 2) -> Pixels:
    """Lay pictures out in rows, from left to right, dark on white, each over its caption.

    Args:
        images: (N, H, W), 0 for paper.
        columns: in a row.
        captions: N texts of digits and plain letters; none leaves no room for them.
        zoom: the size of a pixel.

    Returns:
        (H', W') uint8.
    """
    images = (PAPER - images).repeat(zoom, axis=1).repeat(zoom, axis=2)
    count, height, width = images.shape
    text = LINE if captions else 0
    rows = -(-count // columns)
    high, wide = height + text + GAP, width + GAP
    sheet = np.full((rows * high + GAP, columns * wide + GAP), PAPER, np.uint8)
    places = [
        (GAP + row * high, GAP + column * wide) for row in range(rows) for column in range(columns)
    ]
    for image, (top, left) in zip(images, places, strict=False):
        sheet[top : top + height, left : left + width] = image
    if not captions:
        return sheet
    written = Image.fromarray(sheet)
    pen, font = ImageDraw.Draw(written), ImageFont.load_default_imagefont()
    for caption, (top, left) in zip(captions, places, strict=False):
        pen.text((left, top + height), caption, fill=0, font=font)
    return np.asarray(written)


def as_pixels(values: NDArray[np.floating[Any]]) -> Pixels:
    """Stretch values (N, H, W) to 0 for the least and 255 for the greatest of all."""
    values = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)
    low, high = values.min(), values.max()
    scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return scaled.astype(np.uint8)
