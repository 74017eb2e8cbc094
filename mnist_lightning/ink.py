"""From a picture to the ink of the digit in it: light, paper, specks and lines taken away.

Needs NumPy and Pillow only.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFilter, ImageOps

Grey = NDArray[np.float32]
Mask = NDArray[np.bool_]

WORKING = 800  # the longer side of what is looked at, in pixels
THUMB = 64  # and of what tells paper from strokes
# Strokes are narrower than this share of a picture's shorter side; shadows are wider.
STROKE = 0.22
LEAST_CONTRAST = 0.12  # of the paper's brightness; what stands out less is no ink
DIM = 64  # of 255: paper darker than that has no brightness to speak of
FAINT, FIRM = 0.35, 0.6  # of the ink's strength: a stroke is firm somewhere, and faint nowhere


SPECK = 0.02  # of the digit's ink: what has less is none of it
NEAR = 0.2  # of the digit's longer side: what is farther away belongs to something else


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


class Trace(NamedTuple):
    """The ink of one digit.

    Attributes:
        ink: (H, W) uint8, 0 for paper, 255 for a stroke's full strength; nothing but the digit.
        dark: whether the ink was darker than its paper.
    """

    ink: NDArray[np.uint8]
    dark: bool


def trace(picture: Image.Image) -> Trace:
    """Find the ink of the digit in a picture, whatever its paper and its light.

    Raises:
        ValueError: there is none.
    """
    if 0 in picture.size:
        raise ValueError(f"the picture is empty: {picture.width}x{picture.height}")
    grey = _reduced(grey_of(_upright(picture)))
    dark = _is_dark(grey)
    taken = _strength(grey, dark)
    full = _level(taken)
    if full < LEAST_CONTRAST:
        raise ValueError("no digit in the picture: nothing stands out from its paper")
    ink = np.clip(taken / full, 0, 1)
    digit = _digit(ink)
    # A stroke's edge is fainter than the stroke.
    near = Image.fromarray(digit.astype(np.uint8)).filter(ImageFilter.MaxFilter(3))
    ink[np.asarray(near) == 0] = 0
    return Trace(np.rint(255 * ink).astype(np.uint8), dark)


def _upright(picture: Image.Image) -> Image.Image:
    """Turn a picture as its camera was held; reduce a huge one, so that it fits in memory."""
    factor = max(picture.size) // (2 * WORKING)
    if factor > 1 and not picture.mode.startswith(("I", "F")):
        mode = "RGBA" if picture.has_transparency_data else "L"
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
        picture = picture.convert(mode).reduce(factor)
        if orientation is not None:
            picture.getexif()[ExifTags.Base.Orientation] = orientation
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # notes of the camera that cannot be read: the pixels can
        return picture


def grey_of(picture: Image.Image) -> Grey:
    """The brightness of each pixel, (H, W) from 0 to 255, whatever the picture's mode."""
    if picture.has_transparency_data:
        # On the paper from which most of it stands out.
        colours = picture.convert("RGBA")
        shade, alpha = np.asarray(colours.convert("L")), np.asarray(colours.getchannel("A"))
        light = (shade * (alpha / 255)).sum() > 127 * (alpha / 255).sum()
        paper = Image.new("RGBA", colours.size, "black" if light else "white")
        picture = Image.alpha_composite(paper, colours)
    elif picture.mode.startswith(("I", "F")):  # 16 bits and more, which Pillow would clip
        values = np.asarray(picture, dtype=np.float64)
        most = next((m for m in (1, 255, 65535) if values.max() <= m), values.max())
        return np.rint(np.clip(values, 0, None) * (255 / most)).astype(np.float32)
    return np.asarray(picture.convert("L"), dtype=np.float32)


def _reduced(grey: Grey) -> Grey:
    height, width = grey.shape
    scale = WORKING / max(height, width)
    if scale >= 1:
        return grey
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX), dtype=np.float32)


def _digit(ink: Grey) -> Mask:
    """Find the pixels of the digit: its largest part, and the smaller ones that are near to it."""
    labels, count = _labelled(ink > FAINT)
    firm = set(np.unique(labels[ink > FIRM]).tolist())
    found = [part for part in _parts(labels, count, ink) if part.label in firm]
    main = max(found, key=lambda part: part.mass)
    inner = [part for part in found if not _at_border(part, ink.shape)]
    if inner and main not in inner:
        # What is cut off by the picture's border is a line, a shadow or a neighbour, if there is
        # something inside that may be a digit.
        whole = max(inner, key=lambda part: part.mass)
        if whole.mass > 0.15 * main.mass and whole.height > 0.2 * ink.shape[0]:
            main = whole
    reach = NEAR * max(main.height, main.width)
    candidates = inner if main in inner else found
    kept = [main.label] + [
        part.label
        for part in candidates
        if part.mass > SPECK * main.mass and _gap(part, main) < reach
    ]
    return np.isin(labels, kept)


def _at_border(part: Part, shape: tuple[int, ...]) -> bool:
    height, width = shape
    return part.top == 0 or part.left == 0 or part.bottom == height or part.right == width


def _gap(one: Part, other: Part) -> int:
    """How far two boxes are apart, down or across; 0 where they overlap."""
    across = max(one.left - other.right, other.left - one.right)
    down = max(one.top - other.bottom, other.top - one.bottom)
    return max(across, down, 0)


def _paper(grey: Grey, dark_ink: bool) -> Grey:
    """Estimate the brightness (H, W) that the paper alone would have.

    A closing (for light ink an opening) of a thumbnail: it fills whatever is narrower than a
    stroke can be, and keeps shadows.
    """
    height, width = grey.shape
    scale = THUMB / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))
    if scale < 1:
        picture = picture.resize(size, Image.Resampling.BOX)
    element = max(3, round(STROKE * min(picture.size)) | 1)
    lighten, darken = ImageFilter.MaxFilter(element), ImageFilter.MinFilter(element)
    # Pillow's filters leave the border as it is: widen it by what they look at.
    pad = element // 2 + 1
    wide = Image.fromarray(np.pad(np.asarray(picture), 2 * pad, mode="edge"))
    if dark_ink:
        filled = wide.filter(lighten).filter(darken)
    else:
        filled = wide.filter(darken).filter(lighten)
    filled = filled.filter(ImageFilter.GaussianBlur(element / 4))
    inner = filled.crop((2 * pad, 2 * pad, 2 * pad + picture.width, 2 * pad + picture.height))
    return np.asarray(inner.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def _is_dark(grey: Grey) -> bool:
    """Tell whether the ink is darker than its paper, which is most of a picture, and its edge."""
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    low, high = np.percentile(grey, (0.5, 99.5))
    return bool(np.median(edge) + np.median(grey) >= low + high)


def _strength(grey: Grey, dark_ink: bool) -> Grey:
    """How much of the paper's light the ink takes away at each pixel, 0 to 1."""
    bright = _paper(grey, dark_ink)
    if dark_ink:
        taken = (bright - grey) / np.maximum(bright, DIM)
    else:
        taken = (grey - bright) / np.maximum(255 - bright, DIM)
    return np.clip(taken, 0, 1).astype(np.float32)


def _labelled(mask: Mask) -> tuple[NDArray[np.int32], int]:
    """Number the connected pieces of a mask, neighbours at corners included: (H, W), 0 for none."""
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    change = np.diff(padded, axis=1)
    rows, starts = np.nonzero(change == 1)
    ends = np.nonzero(change == -1)[1]
    parent = list(range(len(rows)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    first_of_row = np.searchsorted(rows, np.arange(height + 1)).tolist()
    begins, stops = starts.tolist(), ends.tolist()
    for row in range(1, height):
        above, here = first_of_row[row - 1], first_of_row[row]
        last_above, last_here = here, first_of_row[row + 1]
        while above < last_above and here < last_here:
            if begins[above] <= stops[here] and begins[here] <= stops[above]:
                parent[root(here)] = root(above)
            if stops[above] < stops[here]:
                above += 1
            else:
                here += 1
    roots = np.array([root(run) for run in range(len(parent))], dtype=np.int64)
    kept, numbers = np.unique(roots, return_inverse=True)
    labels = np.zeros((height, width), np.int32)
    for row, begin, stop, number in zip(
        rows.tolist(), begins, stops, (numbers + 1).tolist(), strict=True
    ):
        labels[row, begin:stop] = number
    return labels, len(kept)


def _parts(labels: NDArray[np.int32], count: int, ink: Grey) -> list[Part]:
    """Measure the pieces that `_labelled` found."""
    found = []
    rows, columns = np.nonzero(labels)
    of = labels[rows, columns]
    order = np.argsort(of, kind="stable")
    bounds = np.searchsorted(of[order], np.arange(1, count + 2))
    for number in range(1, count + 1):
        here = order[bounds[number - 1] : bounds[number]]
        y, x = rows[here], columns[here]
        mass = float(ink[y, x].sum())
        found.append(
            Part(number, int(y.min()), int(x.min()), int(y.max()) + 1, int(x.max()) + 1, mass)
        )
    return found


def _level(taken: Grey) -> float:
    """The strength of the ink itself: that of its strokes' cores, not of single pixels."""
    height, width = taken.shape
    core = Image.fromarray((taken * 255).astype(np.uint8))
    if min(height, width) > 4 * THUMB:
        core = core.filter(ImageFilter.BoxBlur(1))
    values = np.asarray(core, dtype=np.float32) / 255
    inked = values[values > 0.5 * values.max()]
    return float(np.median(inked)) if len(inked) else 0.0
