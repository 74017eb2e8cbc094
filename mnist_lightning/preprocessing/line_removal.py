"""Find ruled lines that are as dark as the pen, and remove them.

Needs NumPy only.
"""

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.preprocessing.components import (
    FAINT,
    Gray,
    Indices,
    Mask,
    at_border,
    label,
    runs,
)

# A ruled line covers so much of its row, when the picture is turned as its lines are.
COVERED = 0.6
THIN = 0.04  # of the shorter side: what is thicker is a stroke
STEEPEST, STEP, FINE = 0.09, 0.004, 0.001  # down for each pixel across: 5 degrees at most
SOUGHT = 20_000  # pixels that tell the lines' slope
EDGE = 0.02  # of the picture: what comes so near to its border may touch it
LEAST_HELD = 0.3  # of the ink beside ruled lines: a part clear of the border has as much


def without_lines(ink: Gray) -> Gray:
    """Take ruled lines away, about level or upright, but for where a stroke crosses them.

    Where nothing but what touches the border would remain, it was the stroke of a digit that fills
    the picture.
    """
    mask = ink > FAINT
    lines = _level_lines(mask) | _level_lines(mask.T).T
    if not lines.any():
        return ink
    rest = np.where(lines, np.float32(0), ink)
    inner = [part for part in label(rest > FAINT, rest)[1] if not at_border(part, ink.shape)]
    held = max((part.mass for part in inner), default=0.0)
    return rest if held > LEAST_HELD * rest.sum() else ink


def _level_lines(mask: Mask) -> Mask:
    """Find the pixels of lines from the left border to the right one."""
    edge = 1 + int(EDGE * mask.shape[1])
    if not (mask[:, :edge].any() and mask[:, -edge:].any()):
        return np.zeros_like(mask)
    rows, columns = np.nonzero(mask)
    slope = _slope(rows, columns)
    # Rows as they would be if the lines were level.
    levels = np.rint(rows - slope * columns).astype(np.int64)
    lowest = levels.min()
    covered = np.bincount(levels - lowest) >= COVERED * mask.shape[1]
    # The line's own edge, and what the slope leaves.
    wide = np.convolve(covered, np.ones(3), "same") > 0
    lines = np.zeros_like(mask)
    lines[rows, columns] = wide[levels - lowest]
    if lines.any():
        # Where a stroke crosses, there is more above or below than the line's own thickness.
        heights = _run_lengths(mask.T).T
        thickness = np.median(heights[lines])
        lines &= heights <= (1.5 * thickness + 1 if thickness <= THIN * min(mask.shape) else 0)
    return lines


def _slope(rows: Indices, columns: Indices) -> float:
    """The slope along which pixels gather in the fewest rows."""
    every = 1 + len(rows) // SOUGHT
    rows, columns = rows[::every], columns[::every]

    def gathered(slope: float) -> float:
        levels = np.rint(rows - slope * columns).astype(np.int64)
        counts = np.bincount(levels - levels.min()).astype(np.float64)
        return float(counts @ counts)

    def best(middle: float, reach: float, step: float) -> float:
        slopes: list[float] = (middle + np.arange(-reach, reach + step / 2, step)).tolist()
        return max(slopes, key=gathered)

    return best(best(0.0, STEEPEST, STEP), STEP, FINE)


def _run_lengths(mask: Mask) -> NDArray[np.int32]:
    """The length of the run of set pixels of its row that each one belongs to; 0 elsewhere."""
    _, begins, ends = runs(mask)
    lengths = np.zeros(mask.shape, np.int32)
    lengths[mask] = np.repeat(ends - begins, ends - begins)
    return lengths
