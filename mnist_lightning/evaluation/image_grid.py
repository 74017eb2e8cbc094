"""Draw many images as one array, in milliseconds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
GAP = 4
CAPTION_HEIGHT = 11  # pixels
PAPER = 255


def grid(images: Pixels, columns: int, captions: Sequence[str] = (), zoom: int = 2) -> Pixels:
    """Arrange images in rows, from left to right, dark on white, each above its caption.

    Args:
        images: (N, H, W), 0 for paper.
        columns: images per row.
        captions: N texts of ASCII characters; if empty, no space is left for them.
        zoom: output pixels per image pixel, on each side.

    Returns:
        (H', W') uint8.
    """
    images = (PAPER - images).repeat(zoom, axis=1).repeat(zoom, axis=2)
    count, height, width = images.shape
    caption_height = CAPTION_HEIGHT if captions else 0
    rows = -(-count // columns)
    row_height, column_width = height + caption_height + GAP, width + GAP
    sheet = np.full((rows * row_height + GAP, columns * column_width + GAP), PAPER, np.uint8)
    places = [
        (GAP + row * row_height, GAP + column * column_width)
        for row in range(rows)
        for column in range(columns)
    ]
    for image, (top, left) in zip(images, places, strict=False):
        sheet[top : top + height, left : left + width] = image
    if not captions:
        return sheet
    captioned = Image.fromarray(sheet)
    pen, font = ImageDraw.Draw(captioned), ImageFont.load_default_imagefont()
    for caption, (top, left) in zip(captions, places, strict=False):
        pen.text((left, top + height), caption, fill=0, font=font)
    return np.asarray(captioned)


def as_pixels(values: NDArray[np.floating[Any]]) -> Pixels:
    """Scale values (N, H, W) to 0 for the minimum and 255 for the maximum of all."""
    values = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)
    low, high = values.min(), values.max()
    scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return scaled.astype(np.uint8)
