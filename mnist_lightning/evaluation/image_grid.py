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
    row_height, column_width = height + GAP + (CAPTION_HEIGHT if captions else 0), width + GAP
    size = columns * column_width + GAP, -(-count // columns) * row_height + GAP
    sheet = Image.new("L", size, PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default_imagefont()
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        left, top = GAP + column * column_width, GAP + row * row_height
        sheet.paste(Image.fromarray(image), (left, top))
        if captions:
            pen.text((left, top + height), captions[index], fill=0, font=font)
    return np.asarray(sheet)


def as_pixels(values: NDArray[np.floating[Any]]) -> Pixels:
    """Scale values (N, H, W) to 0 for the minimum and 255 for the maximum of all."""
    values = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)
    low, high = values.min(), values.max()
    scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return scaled.astype(np.uint8)
