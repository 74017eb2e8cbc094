"""Find the ruled cells of a form: a table, or separate boxes."""

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.preprocessing.components import Gray, Mask

MIN_CELLS = 3  # of a form; the holes of a digit are fewer
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
MAX_INKED = 0.35  # of a cell whose paper is not enclosed; a digit covers less
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
    if len(boxes) < MIN_CELLS or not _is_regular(_number(boxes)):
        return []
    cells = _number([*boxes, *_missing(boxes, mask)])
    return sorted(cells if _is_regular(cells) else _number(boxes))


def _is_regular(cells: Sequence[Cell]) -> bool:
    """Return whether each cell has its own row and column."""
    places = {(cell.row, cell.column) for cell in cells}
    return len(places) == len(cells) <= MAX_CELLS


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
    sides = np.array([(box.width, box.height) for box in boxes])
    is_similar: Mask = sides[:, None] <= MAX_RATIO * sides
    alike: Mask = np.all(is_similar & is_similar.swapaxes(0, 1), axis=2)
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


def _missing(boxes: Sequence[_Box], mask: Mask) -> list[_Box]:
    """Return further boxes in the rows and columns of these, with a line on each side.

    Their paper is not enclosed, because a line has gaps, or a digit divides it. All boxes of a row
    or of a column may be missing.
    """
    height, width = mask.shape
    rows = _grid([(box.top, box.bottom) for box in boxes], height)
    columns = _grid([(box.left, box.right) for box in boxes], width)
    if len(rows) * len(columns) > 2 * MAX_CELLS:
        return []
    candidates = [
        _Box(left, top, right, bottom) for (top, bottom), (left, right) in product(rows, columns)
    ]
    return [
        box
        for box in candidates
        if not any(_holds_center(box, other) for other in boxes) and _is_ruled(box, mask)
    ]


def _grid(spans: Sequence[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Return where each band begins and ends; add bands in large gaps, and one at each end.

    Args:
        spans: of all boxes, in one direction.
        size: of the page in this direction.
    """
    numbers = np.array(_bands(spans))
    grid = [np.median(np.array(spans)[numbers == number], axis=0) for number in np.unique(numbers)]
    if len(grid) > 1:
        step = float(np.median(np.diff(grid, axis=0)))
        added = [grid[0] - step, grid[-1] + step]
        for before, after in pairwise(grid):
            parts = max(1, round(float((after - before).mean()) / step))
            added += [before + (after - before) * part / parts for part in range(1, parts)]
        grid += added
    return [(round(begin), round(end)) for begin, end in grid if begin >= 0 and end <= size]


def _holds_center(box: _Box, other: _Box) -> bool:
    across, down = other.left + other.right, other.top + other.bottom
    return 2 * box.left < across < 2 * box.right and 2 * box.top < down < 2 * box.bottom


def _is_ruled(box: _Box, mask: Mask) -> bool:
    """Return whether most of each side of a box is ink, and its inside is not."""
    inside = mask[box.top : box.bottom, box.left : box.right]
    if inside.mean() > MAX_INKED:
        return False
    reach = max(2, (box.bottom - box.top) // 10)  # the sides need not be exactly level
    across, down = slice(box.left, box.right), slice(box.top, box.bottom)
    sides = [
        mask[max(0, box.top - reach) : box.top + 1, across].any(axis=0),
        mask[box.bottom - 1 : box.bottom + reach, across].any(axis=0),
        mask[down, max(0, box.left - reach) : box.left + 1].any(axis=1),
        mask[down, box.right - 1 : box.right + reach].any(axis=1),
    ]
    return all(side.mean() >= MIN_RULED for side in sides)
