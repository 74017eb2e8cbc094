"""Make a scanned form level, and find the digit in each of its cells."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from mnist_lightning.preprocessing import components
from mnist_lightning.preprocessing.components import Gray
from mnist_lightning.preprocessing.form_cells import CLEAR_LINES, Cell
from mnist_lightning.preprocessing.line_removal import find_slope, remove_lines

# Of the cell's sides: what is shorter on both is a speck.
MIN_DIGIT = 0.2
# Of the cell's sides: a thin piece of ink this near to a side is its line; or if it is long.
EDGE, EDGE_OF_LONG, LONG = 0.12, 0.22, 0.7
MAX_CUT = 0.4  # of the digits may reach two sides of their cells: on squared paper, most do


class LevelPage(NamedTuple):
    """A page that was rotated until its lines were level.

    Attributes:
        ink: (H, W), 0 for paper to 1 for a stroke's full strength.
        degrees: the counterclockwise rotation.
        size: the width and the height before.
    """

    ink: Gray
    degrees: float
    size: tuple[int, int]

    def to_original(self, box: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
        """Return the box around a box of the level page, in the page before the rotation."""
        angle = math.radians(self.degrees)
        height, width = self.ink.shape
        left, top, right, bottom = box
        x = np.array([left, right, right, left]) - width / 2
        y = np.array([top, top, bottom, bottom]) - height / 2
        across = math.cos(angle) * x - math.sin(angle) * y + self.size[0] / 2
        down = math.sin(angle) * x + math.cos(angle) * y + self.size[1] / 2
        return float(across.min()), float(down.min()), float(across.max()), float(down.max())


def make_level(ink: Gray) -> LevelPage:
    """Rotate the ink (H, W) of a page until its lines are level."""
    rows, columns = np.nonzero(ink > CLEAR_LINES[-1])
    degrees = math.degrees(math.atan(find_slope(rows, columns)))
    image = Image.fromarray(ink)
    level = image.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    return LevelPage(np.clip(np.asarray(level), 0, 1), degrees, image.size)


def digits_in(cells: Sequence[Cell], page: Gray) -> dict[Cell, components.DigitComponents] | None:
    """Return the digits in the cells of the ink (H, W) of a level page; an empty cell has none.

    Return None if most digits are cut by their cells: the page is squared paper, not a form.
    """
    found = {cell: digit for cell in cells if (digit := _digit_in(cell, page)) is not None}
    cut = sum(_is_cut(digit, cell) for cell, digit in found.items())
    return found if cut <= MAX_CUT * len(found) else None


def _is_cut(digit: components.DigitComponents, cell: Cell) -> bool:
    left, top, right, bottom = digit.box
    before = (left <= cell.left + 1) + (top <= cell.top + 1)
    after = (right >= cell.right - 1) + (bottom >= cell.bottom - 1)
    return before + after > 1


def _digit_in(cell: Cell, page: Gray) -> components.DigitComponents | None:
    ink = remove_lines(page[cell.top : cell.bottom, cell.left : cell.right])
    if ink.max() <= components.CORE_THRESHOLD:
        return None
    (digit,) = components.segment_digits(ink, multiple=False)
    left, top, right, bottom = digit.box
    height, width = ink.shape
    is_speck = right - left < MIN_DIGIT * width and bottom - top < MIN_DIGIT * height
    if (
        is_speck
        or _is_line((left, right), width, bottom - top, height)
        or _is_line((top, bottom), height, right - left, width)
    ):
        return None
    box = (left + cell.left, top + cell.top, right + cell.left, bottom + cell.top)
    return components.DigitComponents(digit.mask, box)


def _is_line(span: tuple[int, int], size: int, length: int, full_length: int) -> bool:
    """Return whether a piece of ink is a rest of a cell's line.

    Args:
        span: where it begins and ends, across the line.
        size: the size of the cell in this direction.
        length: the length of the piece along the line.
        full_length: the size of the cell along the line.
    """
    start, end = span
    if end - start > EDGE * size:
        return False
    edge = size * (EDGE_OF_LONG if length > LONG * full_length else EDGE)
    return end <= edge or start >= size - edge
