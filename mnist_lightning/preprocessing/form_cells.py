"""Find the ruled cells of a form: a table, or separate boxes."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.preprocessing.components import Gray, Mask

MIN_CELLS = 3  # a form has more; the holes of a digit are fewer
# Of the ink's full strength: lines may be paler than the pen. Pale ones are averaged along their
# direction, because the noise of a scanner may be as strong.
CLEAR_LINES, PALE_LINES = (0.35, 0.2), (0.12, 0.07)
AVERAGED = 9  # pixels
MUCH_MORE = 1.3  # times the area of cells with pale lines: then these are the lines of the form
MAX_CELLS, MAX_BOXES = 500, 2000  # more are a pattern, which would also need much memory
MIN_SIDE = 12  # pixels of a cell
MAX_ASPECT = 4.0  # between the sides of a cell
MIN_FILL = 0.8  # of its box that a cell covers, with the digit in it; a zero's hole covers less
MAX_RATIO = 1.3  # between the sides of two cells
MIN_RULED = 0.6  # of each side of a cell whose paper is not enclosed


class Cell(NamedTuple):
    """A cell of a form: its row and column, from 1, and its box in pixels (ends excluded)."""

    row: int
    column: int
    left: int
    top: int
    right: int
    bottom: int


class _Box(NamedTuple):
    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


def find_cells(ink: Gray) -> list[Cell]:
    """Find the cells in the ink (H, W) of an upright page; return none if it is not a form."""
    clear, pale = (max(map(_find, masks), key=_area) for masks in _line_masks(ink))
    return pale if _area(pale) > MUCH_MORE * _area(clear) else clear


def _area(cells: Sequence[Cell]) -> int:
    """Return the area of cells: strokes that divide cells add cells, but no area."""
    return sum((cell.right - cell.left) * (cell.bottom - cell.top) for cell in cells)


def is_form(ink: Gray) -> bool:
    """Return whether the ink (H, W) of a page, which may be rotated, shows cells."""
    masks = chain(*_line_masks(ink))
    return any(len(_similar(_enclosed(mask))) >= MIN_CELLS for mask in masks)


def _line_masks(ink: Gray) -> tuple[Iterator[Mask], Iterator[Mask]]:
    """Return masks of clear lines, and of pale ones; they are computed when they are used."""
    from scipy import ndimage

    def average() -> Iterator[Mask]:
        averages = [ndimage.uniform_filter1d(ink, AVERAGED, axis) for axis in (0, 1)]
        yield from (np.maximum(*averages) > strength for strength in PALE_LINES)

    return (ink > strength for strength in CLEAR_LINES), average()


def _find(mask: Mask) -> list[Cell]:
    """Find the cells whose lines are in a mask; return none if they are few or irregular."""
    boxes = _similar(_enclosed(mask))
    if len(boxes) < MIN_CELLS:
        return []
    cells = _number(boxes)
    places = {(cell.row, cell.column) for cell in cells}
    is_regular = len(places) == len(cells) <= MAX_CELLS
    return sorted([*cells, *_missing(cells, mask)])[:MAX_CELLS] if is_regular else []


def _enclosed(mask: Mask) -> list[_Box]:
    """Return the boxes of rectangular areas of paper that ink encloses."""
    from scipy import ndimage

    height, width = mask.shape
    closed = ndimage.grey_closing(mask.view(np.uint8), 3)  # closes gaps of two pixels
    labels, _ = ndimage.label(closed == 0)
    boxes = []
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        rows, columns = place
        box = _Box(columns.start, rows.start, columns.stop, rows.stop)
        is_inside = box.left > 0 and box.top > 0 and box.right < width and box.bottom < height
        short, long = sorted((box.width, box.height))
        if not is_inside or short < MIN_SIDE or long > MAX_ASPECT * short:
            continue
        filled = ndimage.binary_fill_holes(labels[place] == number)
        if filled.mean() >= MIN_FILL:
            boxes.append(box)
    return boxes


def _similar(boxes: Sequence[_Box]) -> list[_Box]:
    """Return the largest group of boxes whose sides are alike; none of a pattern."""
    if not 0 < len(boxes) <= MAX_BOXES:
        return []
    sides = np.log([(box.width, box.height) for box in boxes])
    alike = (np.abs(sides[:, None] - sides) <= np.log(MAX_RATIO)).all(axis=2)
    chosen = alike[alike.sum(axis=1).argmax()]
    return [box for box, is_chosen in zip(boxes, chosen, strict=True) if is_chosen]


def _number(boxes: Sequence[_Box]) -> list[Cell]:
    """Give each box its row and its column."""
    rows = _bands([(box.top, box.bottom) for box in boxes])
    columns = _bands([(box.left, box.right) for box in boxes])
    places = zip(rows, columns, boxes, strict=True)
    return [Cell(row, column, *box) for row, column, box in places]


def _bands(spans: Sequence[tuple[int, int]]) -> list[int]:
    """Return for each span the number of its band, from 1: spans of a band overlap."""
    middles = np.array([(start + end) / 2 for start, end in spans])
    size = float(np.median([end - start for start, end in spans]))
    order = np.argsort(middles, kind="stable")
    steps = [second - first > size / 2 for first, second in pairwise(middles[order])]
    bands: NDArray[np.int64] = np.empty(len(spans), dtype=np.int64)
    bands[order] = 1 + np.cumsum([0, *steps])
    return [int(band) for band in bands]


def _missing(cells: Sequence[Cell], mask: Mask) -> list[Cell]:
    """Return further cells of the same rows and columns with a line on each side.

    Their paper is not enclosed, because a line has gaps, or a digit divides it.
    """
    rows, columns = defaultdict(list), defaultdict(list)
    for cell in cells:
        rows[cell.row].append((cell.top, cell.bottom))
        columns[cell.column].append((cell.left, cell.right))
    known = {(cell.row, cell.column) for cell in cells}
    found = []
    for row, column in product(rows, columns):
        top, bottom = np.median(rows[row], axis=0).astype(int).tolist()
        left, right = np.median(columns[column], axis=0).astype(int).tolist()
        cell = Cell(row, column, left, top, right, bottom)
        if (row, column) not in known and _is_ruled(cell, mask):
            found.append(cell)
    return found


def _is_ruled(cell: Cell, mask: Mask) -> bool:
    """Return whether most of each side of a cell is ink."""
    reach = max(2, (cell.bottom - cell.top) // 10)  # the sides need not be exactly level
    across, down = slice(cell.left, cell.right), slice(cell.top, cell.bottom)
    sides = [
        mask[max(0, cell.top - reach) : cell.top + 1, across].any(axis=0),
        mask[cell.bottom - 1 : cell.bottom + reach, across].any(axis=0),
        mask[down, max(0, cell.left - reach) : cell.left + 1].any(axis=1),
        mask[down, cell.right - 1 : cell.right + reach].any(axis=1),
    ]
    return all(side.mean() >= MIN_RULED for side in sides)
