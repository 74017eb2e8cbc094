"""Connected components of ink, and how they form digits."""

from itertools import chain, combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Shares of the ink's full strength: a stroke exceeds the first everywhere, the second somewhere.
INK_THRESHOLD, CORE_THRESHOLD = 0.35, 0.6
MIN_MASS = 0.02  # of the digit's ink: a smaller part is a speck
MAX_GAP = 0.2  # of the digit's longer side: a part farther away does not belong to it
MAX_BREAK = 2  # pixels: a stroke may have such gaps
EDGE_LINE = 0.1  # of the side of a scan: a line at its border is thinner
# Of the highest part: a lower one is not a digit. The other two, of the largest digit: a clear one.
MIN_HEIGHT, CLEAR_HEIGHT, CLEAR_MASS = 0.45, 0.5, 0.1
MAX_ASPECT = 1.4  # width / height: few digits are wider
MAX_DIGITS = 200  # in an image, and pieces of a digit; an image with more is a pattern


class Component(NamedTuple):
    """A connected component of ink: its box in pixels (ends excluded), and the sum of its ink."""

    label: int
    top: int
    left: int
    bottom: int
    right: int
    mass: float

    @property
    def height(self) -> int:
        """The height in pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """The width in pixels."""
        return self.right - self.left


class DigitComponents(NamedTuple):
    """A digit's box in an image, and the mask of the digit's pixels within the box."""

    mask: Mask
    box: tuple[int, int, int, int]

    @property
    def wide(self) -> bool:
        """Whether the digit is so wide that it may be several touching digits."""
        left, top, right, bottom = self.box
        return right - left > MAX_ASPECT * (bottom - top)


def segment_digits(
    ink: Gray, multiple: bool | None, is_scan: bool = False
) -> list[DigitComponents]:
    """Segment ink into digits, in reading order.

    Args:
        ink: (H, W), 0 for paper to 1 for a stroke's full strength; not empty.
        multiple: whether to look for several digits. None: only if they are obvious.
        is_scan: whether it is a small scan, whose strokes may touch the border.
    """
    labels, parts = label_components(ink > INK_THRESHOLD, ink)
    cores = set(np.unique(labels[ink > CORE_THRESHOLD]).tolist())
    strokes = [part for part in parts if part.label in cores] or parts
    if is_scan:
        strokes = [part for part in strokes if not _is_edge_line(part, ink.shape)] or strokes
    inner = [part for part in strokes if is_scan or not touches_border(part, ink.shape)]
    main = _main_group(strokes, inner, ink.shape[0], is_scan)
    groups = [main]
    if multiple is not False:
        candidates = inner if main[0] in inner else strokes
        large = [part for part in candidates if part.mass >= MIN_MASS * main[0].mass]
        if len(large) <= MAX_DIGITS:
            groups = _digit_groups(large)
        if len(groups) < 2 or (multiple is None and not _are_obvious(groups)):
            groups = [main]
    return [_to_digit(group, labels) for group in _in_reading_order(groups)]


def _to_digit(group: list[Component], labels: NDArray[np.int32]) -> DigitComponents:
    box = _bounds(group)
    crop = labels[box.top : box.bottom, box.left : box.right]
    mask = np.isin(crop, [part.label for part in group])
    return DigitComponents(mask, (box.left, box.top, box.right, box.bottom))


def _main_group(
    strokes: list[Component], inner: list[Component], height: int, is_scan: bool
) -> list[Component]:
    """Return the largest part, the smaller ones near it, and the rest of broken strokes."""
    main = max(strokes, key=lambda part: part.mass)
    if inner and main not in inner:
        # A part that touches the border is a line, a shadow or a neighbor if another part, inside
        # the image, can be the digit.
        largest = max(inner, key=lambda part: part.mass)
        if largest.mass > 0.15 * main.mass and largest.height > 0.2 * height:
            main = largest
    rest = [part for part in (inner if main in inner else strokes) if part is not main]
    rest = [part for part in rest if part.mass > MIN_MASS * main.mass]
    group = [main, *(part for part in rest if _is_near(part, main))]
    rest = [part for part in rest if part not in group]
    while len(rest) <= MAX_DIGITS:
        whole = _bounds(group)
        added = [part for part in rest if _continues(part, whole, is_scan)]
        if not added:
            break
        group += added
        rest = [part for part in rest if part not in added]
    return group


def _continues(part: Component, whole: Component, is_scan: bool) -> bool:
    """Return whether a part continues broken strokes, and is not another digit beside them."""
    is_beside = part.left >= whole.right or part.right <= whole.left
    if is_beside and part.height >= MIN_HEIGHT * whole.height:
        return False
    longer = max(whole.height, whole.width)
    return _gap(part, whole) <= max(MAX_BREAK, MAX_GAP * longer if is_scan else 0)


def _is_edge_line(part: Component, shape: tuple[int, ...]) -> bool:
    """Return whether a part is a thin line along a border of the image (H, W)."""
    height, width = shape
    upright = part.width <= EDGE_LINE * width and part.height > 0.5 * height
    level = part.height <= EDGE_LINE * height and part.width > 0.5 * width
    return (upright and (part.left == 0 or part.right == width)) or (
        level and (part.top == 0 or part.bottom == height)
    )


def _digit_groups(parts: list[Component]) -> list[list[Component]]:
    """Group parts into digits: one high part for each, and the lower parts near it."""
    highest = max(part.height for part in parts)
    groups: list[list[Component]] = []
    rest = []
    for part in sorted(parts, key=lambda part: -part.height):
        owner = next((group for group in groups if _belongs(part, _bounds(group))), None)
        if owner is not None:
            owner.append(part)
        elif part.height >= MIN_HEIGHT * highest:
            groups.append([part])
        else:
            rest.append(part)
    for part in rest:
        nearest = min(groups, key=lambda group: _gap(part, _bounds(group)))
        if _is_near(part, _bounds(nearest)):
            nearest.append(part)
    return groups


def _belongs(part: Component, digit: Component) -> bool:
    """Return whether a part lies above, below or within a digit, and near it."""
    shared = min(part.right, digit.right) - max(part.left, digit.left)
    return shared > 0.5 * min(part.width, digit.width) and _is_near(part, digit)


def _is_near(part: Component, digit: Component) -> bool:
    return _gap(part, digit) < MAX_GAP * max(digit.height, digit.width)


def _are_obvious(groups: list[list[Component]]) -> bool:
    """Return whether all groups are high, inked and separate."""
    digits = [_bounds(group) for group in groups]
    highest = max(digit.height for digit in digits)
    max_mass = max(digit.mass for digit in digits)
    return (
        all(digit.height >= CLEAR_HEIGHT * highest for digit in digits)
        and all(digit.mass >= CLEAR_MASS * max_mass for digit in digits)
        and all(_gap(first, second) > 0 for first, second in combinations(digits, 2))
    )


def _in_reading_order(groups: list[list[Component]]) -> list[list[Component]]:
    """Sort groups line by line from the top, and each line from the left."""
    lines: list[list[list[Component]]] = []
    for group in sorted(groups, key=lambda group: _bounds(group).top):
        digit = _bounds(group)
        middle = (digit.top + digit.bottom) / 2
        if lines and middle < _bounds(list(chain(*lines[-1]))).bottom:
            lines[-1].append(group)
        else:
            lines.append([group])
    return list(chain(*(sorted(line, key=lambda group: _bounds(group).left) for line in lines)))


def _bounds(parts: list[Component]) -> Component:
    """Return the bounding box of parts, with the sum of their ink."""
    labels, tops, lefts, bottoms, rights, masses = zip(*parts, strict=True)
    return Component(labels[0], min(tops), min(lefts), max(bottoms), max(rights), sum(masses))


def touches_border(part: Component, shape: tuple[int, ...]) -> bool:
    """Return whether a part touches the border of an image (H, W)."""
    height, width = shape
    return part.top == 0 or part.left == 0 or part.bottom == height or part.right == width


def _gap(first: Component, second: Component) -> int:
    """Return the larger of the gaps between two boxes, down and across; 0 if they overlap."""
    across = max(first.left - second.right, second.left - first.right)
    down = max(first.top - second.bottom, second.top - first.bottom)
    return max(across, down, 0)


def label_components(mask: Mask, ink: Gray) -> tuple[NDArray[np.int32], list[Component]]:
    """Label the connected components of a mask; pixels that touch at a corner are connected.

    Returns:
        For each pixel the number of its component (H, W), 0 for none; and the components 1, 2, …
    """
    from scipy import ndimage  # takes 0.2 s to import

    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    masses = np.bincount(labels[mask], ink[mask])[1:].tolist()
    found = zip(ndimage.find_objects(labels), masses, strict=True)
    components = [
        Component(number, rows.start, columns.start, rows.stop, columns.stop, mass)
        for number, ((rows, columns), mass) in enumerate(found, 1)
    ]
    return labels, components
