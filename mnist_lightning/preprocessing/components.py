"""Connected components of ink, and how they form digits.

Needs NumPy only.
"""

from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.float32]
Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]

FAINT, FIRM = 0.35, 0.6  # of the ink's strength: a stroke is firm somewhere, and faint nowhere
SPECK = 0.02  # of the digit's ink: what has less is none of it
NEAR = 0.2  # of the digit's longer side: what is farther away belongs to something else
# A digit's part is at least so high as to be a digit of its own, beside the highest one.
HIGH, CLEARLY_HIGH, CLEARLY_INKED = 0.45, 0.5, 0.1
WIDE = 1.4  # times the height: few digits are wider
MOST_DIGITS = 200  # in a picture; what has more pieces than that is a pattern


class Part(NamedTuple):
    """A connected piece of ink: its box in pixels (ends excluded), and how much there is of it."""

    label: int
    top: int
    left: int
    bottom: int
    right: int
    mass: float

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left


class Digit(NamedTuple):
    """A digit's box in a picture, and which of the box's pixels are its own."""

    mask: Mask
    box: tuple[int, int, int, int]

    @property
    def wide(self) -> bool:
        """Whether it is so wide that it may be several that touch."""
        left, top, right, bottom = self.box
        return right - left > WIDE * (bottom - top)


def find_digits(ink: Gray, multiple: bool | None) -> list[Digit]:
    """Find the digits in reading order.

    Args:
        ink: (H, W), 0 for paper to 1 for a stroke's full strength; not empty.
        multiple: whether there are several. None: if that is obvious.
    """
    labels, parts = label(ink > FAINT, ink)
    firm = set(labels[ink > FIRM].tolist())
    found = [part for part in parts if part.label in firm] or parts
    inner = [part for part in found if not at_border(part, ink.shape)]
    main = _main_group(found, inner, ink.shape[0])
    groups = [main]
    if multiple is not False:
        beside = inner if main[0] in inner else found
        several = [part for part in beside if part.mass >= SPECK * main[0].mass]
        if len(several) <= MOST_DIGITS:
            groups = _digit_groups(several)
        if len(groups) < 2 or (multiple is None and not _are_obvious(groups)):
            groups = [main]
    return [_digit(group, labels) for group in _in_reading_order(groups)]


def _digit(group: list[Part], labels: NDArray[np.int32]) -> Digit:
    whole = _around(group)
    place = labels[whole.top : whole.bottom, whole.left : whole.right]
    mask = np.isin(place, [part.label for part in group])
    return Digit(mask, (whole.left, whole.top, whole.right, whole.bottom))


def _main_group(found: list[Part], inner: list[Part], height: int) -> list[Part]:
    """The largest part first, and the smaller ones that are near to it."""
    main = max(found, key=lambda part: part.mass)
    if inner and main not in inner:
        # What is cut off by the picture's border is a line, a shadow or a neighbor, if there is
        # something inside that may be a digit.
        whole = max(inner, key=lambda part: part.mass)
        if whole.mass > 0.15 * main.mass and whole.height > 0.2 * height:
            main = whole
    reach = NEAR * max(main.height, main.width)
    return [main] + [
        part
        for part in (inner if main in inner else found)
        if part is not main and part.mass > SPECK * main.mass and _gap(part, main) < reach
    ]


def _digit_groups(parts: list[Part]) -> list[list[Part]]:
    """Gather the parts of each digit: those high enough to be one, and what lies near to each."""
    highest = max(part.height for part in parts)
    groups: list[list[Part]] = []
    rest = []
    for part in sorted(parts, key=lambda part: -part.height):
        home = next((group for group in groups if _belongs(part, _around(group))), None)
        if home is not None:
            home.append(part)
        elif part.height >= HIGH * highest:
            groups.append([part])
        else:
            rest.append(part)
    for part in rest:
        nearest = min(groups, key=lambda group: _gap(part, _around(group)))
        whole = _around(nearest)
        if _gap(part, whole) < NEAR * max(whole.height, whole.width):
            nearest.append(part)
    return groups


def _belongs(part: Part, whole: Part) -> bool:
    """Tell whether a part stands above, below or within a digit, and near to it."""
    shared = min(part.right, whole.right) - max(part.left, whole.left)
    over = shared > 0.5 * min(part.width, whole.width)
    return over and _gap(part, whole) < NEAR * max(whole.height, whole.width)


def _are_obvious(groups: list[list[Part]]) -> bool:
    """Tell whether at least two are high and black enough, and clear of each other."""
    wholes = [_around(group) for group in groups]
    highest = max(whole.height for whole in wholes)
    most = max(whole.mass for whole in wholes)
    clear = [
        whole
        for whole in wholes
        if whole.height >= CLEARLY_HIGH * highest and whole.mass >= CLEARLY_INKED * most
    ]
    return len(clear) == len(groups) >= 2 and all(
        _gap(one, other) > 0 for one in clear for other in clear if one is not other
    )


def _in_reading_order(groups: list[list[Part]]) -> list[list[Part]]:
    """Line by line from the top, each from the left."""
    lines: list[list[list[Part]]] = []
    for group in sorted(groups, key=lambda group: _around(group).top):
        whole = _around(group)
        middle = (whole.top + whole.bottom) / 2
        if lines and middle < _around(list(chain.from_iterable(lines[-1]))).bottom:
            lines[-1].append(group)
        else:
            lines.append([group])
    return [
        group for line in lines for group in sorted(line, key=lambda group: _around(group).left)
    ]


def _around(parts: list[Part]) -> Part:
    """The box around parts, and all of their ink."""
    return Part(
        parts[0].label,
        min(part.top for part in parts),
        min(part.left for part in parts),
        max(part.bottom for part in parts),
        max(part.right for part in parts),
        sum(part.mass for part in parts),
    )


def at_border(part: Part, shape: tuple[int, ...]) -> bool:
    """Tell whether a part touches the border of a picture (H, W)."""
    height, width = shape
    return part.top == 0 or part.left == 0 or part.bottom == height or part.right == width


def _gap(one: Part, other: Part) -> int:
    """How far two boxes are apart, down or across; 0 where they overlap."""
    across = max(one.left - other.right, other.left - one.right)
    down = max(one.top - other.bottom, other.top - one.bottom)
    return max(across, down, 0)


def label(mask: Mask, ink: Gray) -> tuple[NDArray[np.int32], list[Part]]:
    """Find the connected pieces of a mask, neighbors at corners included.

    Returns:
        The number of its piece for each pixel (H, W), 0 for none; and the pieces 1, 2, …
    """
    rows, begins, ends = runs(mask)
    labels = np.zeros(mask.shape, np.int32)
    if len(rows) == 0:
        return labels, []
    numbers = _joined(rows, begins, ends, len(mask))
    for row, begin, end, number in zip(
        rows.tolist(), begins.tolist(), ends.tolist(), numbers.tolist(), strict=True
    ):
        labels[row, begin:end] = number
    lengths = ends - begins
    masses = np.add.reduceat(ink[mask], np.cumsum(lengths) - lengths, dtype=np.float64)
    order = np.argsort(numbers, kind="stable")
    firsts = np.searchsorted(numbers[order], np.arange(1, numbers.max() + 1))
    pieces = [
        Part(number, top, left, bottom + 1, right, mass)
        for number, (top, left, bottom, right, mass) in enumerate(
            zip(
                np.minimum.reduceat(rows[order], firsts).tolist(),
                np.minimum.reduceat(begins[order], firsts).tolist(),
                np.maximum.reduceat(rows[order], firsts).tolist(),
                np.maximum.reduceat(ends[order], firsts).tolist(),
                np.add.reduceat(masses[order], firsts).tolist(),
                strict=True,
            ),
            1,
        )
    ]
    return labels, pieces


def runs(mask: Mask) -> tuple[Indices, Indices, Indices]:
    """The runs of set pixels within the rows of a mask: row, begin, and end (excluded) of each."""
    height, width = mask.shape
    wide = np.zeros((height, width + 1), np.bool_)
    wide[:, :-1] = mask
    flat = np.concatenate([[False], wide.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    rows = edges[::2] // (width + 1)
    return rows, edges[::2] - rows * (width + 1), edges[1::2] - rows * (width + 1)


def _joined(rows: Indices, begins: Indices, ends: Indices, height: int) -> Indices:
    """Number the pieces that runs make where they touch those of the next row, from 1 on."""
    parent = list(range(len(rows)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    first_of_row = np.searchsorted(rows, np.arange(height + 1)).tolist()
    starts, stops = begins.tolist(), ends.tolist()
    for row in range(1, height):
        above, here = first_of_row[row - 1], first_of_row[row]
        last_above, last_here = here, first_of_row[row + 1]
        while above < last_above and here < last_here:
            if starts[above] <= stops[here] and starts[here] <= stops[above]:
                parent[root(here)] = root(above)
            if stops[above] < stops[here]:
                above += 1
            else:
                here += 1
    roots = np.array([root(run) for run in range(len(parent))], dtype=np.int64)
    numbers: Indices = np.unique(roots, return_inverse=True)[1] + 1
    return numbers
