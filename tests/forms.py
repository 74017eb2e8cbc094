"""Draw scanned forms: pages of ruled cells with a handwritten digit in each."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from mnist_lightning.data.datasets import SOURCES
from tests.images import draw_seven

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


STYLES = {
    "a table": Style(),
    "separate boxes": Style(gap=20, line=3),
    "pale lines": Style(line=1, line_gray=190, noise=4),
    "thick lines": Style(line=5, cell=(60, 90)),
    "wide cells": Style(cell=(140, 60), line_gray=120),
    "turned left": Style(degrees=4),
    "turned right": Style(degrees=-3, gap=10, noise=5, shade=40),
    "a pale pen": Style(pen_gray=120, shade=40),
}


def generated(count: int) -> tuple[NDArray[np.uint8], list[int]]:
    """Return generated digits, and their labels."""
    data = SOURCES["strokes"].load(Path())
    return data.train_images[:count].numpy(), data.train_labels[:count].tolist()


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


def boxes_of_ink(rows: int, columns: int) -> NDArray[np.float32]:
    """Return the ink of empty boxes of 50 pixels, one in each square of 60."""
    ink = np.zeros((60 * rows + 70, 60 * columns + 70), np.float32)
    for row, column in np.ndindex(rows, columns):
        top, left = 40 + 60 * row, 40 + 60 * column
        ink[top : top + 50, left : left + 50] = 1
        ink[top + 2 : top + 48, left + 2 : left + 48] = 0
    return ink


def squared_paper() -> Image.Image:
    """Draw a large seven on squared paper."""
    page = draw_seven(300)
    pen = ImageDraw.Draw(page)
    for place in range(10, 300, 20):
        pen.line((place, 0, place, 300), fill=150)
        pen.line((0, place, 300, place), fill=150)
    return page


def zeros() -> Image.Image:
    """Draw six zeros: their holes are enclosed, but no cells."""
    page = Image.new("L", (600, 200), 255)
    for left in range(20, 600, 100):
        ImageDraw.Draw(page).ellipse((left, 40, left + 60, 150), outline=0, width=8)
    return page
