"""Find ruled lines that are as dark as the pen, and remove them."""

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.preprocessing import components
from mnist_lightning.preprocessing.components import INK_THRESHOLD, Gray, Mask

Indices = NDArray[np.int64]

# A ruled line covers this share of its row, once the image is rotated so that lines are level.
MIN_COVERAGE = 0.6
MAX_THICKNESS = 0.04  # of the shorter side: a thicker line is a stroke
MAX_SLOPE, COARSE_STEP, FINE_STEP = 0.09, 0.004, 0.001  # rows per column: 5 degrees at most
MAX_SAMPLES = 20_000  # pixels that the slope is computed from
BORDER = 0.02  # of the image: a line this near to the border touches it
# Of the ink that is left: the components that do not touch the border must have more.
MIN_INSIDE = 0.3


def remove_lines(ink: Gray) -> Gray:
    """Remove ruled lines, about horizontal or vertical, except where a stroke crosses them.

    If most of what is left touches the border, the line was a stroke of a digit that fills the
    image, and nothing is removed.
    """
    mask = ink > INK_THRESHOLD
    lines = _find_lines(mask) | _find_lines(mask.T).T
    if not lines.any():
        return ink
    rest = np.where(lines, np.float32(0), ink)
    _, parts = components.label_components(rest > INK_THRESHOLD, rest)
    inside = sum(part.mass for part in parts if not components.touches_border(part, ink.shape))
    return rest if inside > MIN_INSIDE * rest.sum() else ink


def _find_lines(mask: Mask) -> Mask:
    """Return the pixels of lines that run from the left border to the right border."""
    border = 1 + int(BORDER * mask.shape[1])
    if not (mask[:, :border].any() and mask[:, -border:].any()):
        return np.zeros_like(mask)
    rows, columns = np.nonzero(mask)
    slope = find_slope(rows, columns)
    # The rows that the pixels would have if the lines were level.
    levels = np.rint(rows - slope * columns).astype(np.int64)
    lowest = levels.min()
    covered = np.bincount(levels - lowest) >= MIN_COVERAGE * mask.shape[1]
    # Add the edges of the line, and the rest of the slope.
    widened = np.convolve(covered, np.ones(3), "same") > 0
    lines = np.zeros_like(mask)
    lines[rows, columns] = widened[levels - lowest]
    if lines.any():
        # Where a stroke crosses, the vertical run is longer than the line is thick.
        heights = _run_lengths(mask.T).T
        thickness = np.median(heights[lines])
        is_line = thickness <= MAX_THICKNESS * min(mask.shape)
        lines &= heights <= (1.5 * thickness + 1 if is_line else 0)
    return lines


def find_slope(rows: Indices, columns: Indices) -> float:
    """Return the slope along which the pixels fall into the fewest rows."""
    stride = 1 + len(rows) // MAX_SAMPLES
    rows, columns = rows[::stride], columns[::stride]

    def concentration(slope: float) -> float:
        levels = np.rint(rows - slope * columns).astype(np.int64)
        counts = np.bincount(levels - levels.min()).astype(np.float64)
        return float(counts @ counts)

    def best_slope(middle: float, reach: float, step: float) -> float:
        slopes: list[float] = (middle + np.arange(-reach, reach + step / 2, step)).tolist()
        return max(slopes, key=concentration)

    return best_slope(best_slope(0.0, MAX_SLOPE, COARSE_STEP), COARSE_STEP, FINE_STEP)


def _run_lengths(mask: Mask) -> NDArray[np.int64]:
    """Return for each set pixel the length of its run within its row; 0 for the others."""
    from scipy import ndimage

    runs, _ = ndimage.label(mask, [[0, 0, 0], [1, 1, 1], [0, 0, 0]])
    return np.where(mask, np.bincount(runs.ravel())[runs], 0)
