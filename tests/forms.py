"""Draw scanned forms: pages of ruled cells with a handwritten digit in each."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Digits = NDArray[np.uint8]


class Style(NamedTuple):
    """How a form looks.

    Attributes:
        cell: the width and height of a cell, in pixels.
        line: the thickness of the lines.
        line_gray: their brightness.
        pen_gray: the brightness of the ink.
        digit: the height of a digit, as a share of the cell.
        jitter: how far a digit may be from the center of its cell, as a share of the cell.
        gap: between separate boxes; 0: a table.
        degrees: the rotation of the page.
        noise: the standard deviation of the scanner's noise, of 255.
        shade: how much darker one side of the page is, of 255.
    """

    cell: tuple[int, int] = (80, 80)
    line: int = 2
    line_gray: int = 60
    pen_gray: int = 40
    digit: float = 0.6
    jitter: float = 0.1
    gap: int = 0
    degrees: float = 0.0
    noise: float = 0.0
    shade: int = 0


def draw_form(
    images: Digits, rows: int, columns: int, style: Style, seed: int = 0
) -> tuple[Image.Image, NDArray[np.int64]]:
    """Draw a form.

    Args:
        images: (N, 28, 28) digits, in MNIST's format; an empty image leaves its cell empty.
        rows: the number of rows.
        columns: the number of columns.
        style: how it looks.
        seed: of the places and the noise.

    Returns:
        The page, and for each cell (rows, columns) the number of its image.
    """
    random = np.random.default_rng(seed)
    width, height = style.cell
    step_x, step_y = width + style.gap, height + style.gap
    margin = max(width, height)
    page = Image.new("L", (columns * step_x + 2 * margin, rows * step_y + 3 * margin), 245)
    draw = ImageDraw.Draw(page)
    draw.text((margin, margin // 3), "Please write one digit in each cell. Form 27", fill=60)
    for row in range(rows):
        for column in range(columns):
            left, top = margin + column * step_x, 2 * margin + row * step_y
            corners = [(left, top), (left + width, top), (left + width, top + height)]
            corners += [(left, top + height), (left, top)]
            draw.line(corners, fill=style.line_gray, width=style.line, joint="curve")
    numbers = np.arange(rows * columns).reshape(rows, columns)
    for (row, column), number in np.ndenumerate(numbers):
        side = round(style.digit * min(width, height) * 28 / 20)
        ink = Image.fromarray(images[number]).resize((side, side), Image.Resampling.BICUBIC)
        shift = random.uniform(-style.jitter, style.jitter, 2) * (width, height)
        left = margin + column * step_x + (width - side) / 2 + shift[0]
        top = 2 * margin + row * step_y + (height - side) / 2 + shift[1]
        page.paste(style.pen_gray, (round(left), round(top)), ink)
    if style.degrees:
        page = page.rotate(style.degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=245)
    page = page.filter(ImageFilter.GaussianBlur(0.6))
    pixels = np.asarray(page, dtype=np.float64)
    pixels = pixels - style.shade * np.linspace(0, 1, pixels.shape[1])
    pixels = pixels + random.normal(0, style.noise, pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)), numbers
