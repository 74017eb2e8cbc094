"""From an image to the ink of its digits: remove light, paper, specks and lines."""

import warnings
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from mnist_lightning.preprocessing import components, form_cells, forms, paper_removal
from mnist_lightning.preprocessing.line_removal import remove_lines

Gray = NDArray[np.float32]

WORKING_SIDE = 800  # pixels, the longer side of the reduced image that is searched
FORM_SIDE = 1600  # the same for a form, which has many small digits
MIN_TABLE_BORDER = 0.95  # of the image's border is table, if a sheet on a table is shown
MIN_CONTRAST = 0.12  # of the paper's brightness; a lower contrast is not ink


class DigitCrop(NamedTuple):
    """The ink of one digit, cropped from an image.

    Attributes:
        ink: (H, W) uint8, 0 for paper, 255 for a stroke's full strength; only the digit's ink.
        dark: whether the ink was darker than the paper.
        box: left, top, right and bottom (ends excluded) in pixels of the upright image.
        wide: whether the digit is so wide that it may be several touching digits.
        cell: its row and column in a form, from 1; None if the image is not a form.
    """

    ink: NDArray[np.uint8]
    dark: bool
    box: tuple[int, int, int, int]
    wide: bool
    cell: tuple[int, int] | None = None


def extract_digits(image: Image.Image, multiple: bool | None = False) -> list[DigitCrop]:
    """Extract the ink of the digits in an image, for any paper and light.

    Args:
        image: of any size, mode and orientation.
        multiple: whether to look for several digits, in reading order. None: only if they are
            obvious.

    Raises:
        ValueError: the image contains no digit.
    """
    if 0 in image.size:
        raise ValueError(f"the image is empty: {image.width}x{image.height} pixels")
    image = upright(image)
    page = _find_ink(image, WORKING_SIDE)
    if multiple is not False and form_cells.is_form(page.ink):
        large = _find_ink(image, FORM_SIDE)
        level = forms.make_level(large.ink)
        cells = form_cells.find_cells(level.ink)
        digits = forms.digits_in(cells, level.ink)
        if cells and digits is not None:
            return _extract_form(large, level, digits)
    ink = remove_lines(page.ink)
    padded = np.pad(ink, 1)
    return [
        DigitCrop(_crop(padded, digit), page.dark, page.to_image(*digit.box), digit.wide)
        for digit in components.segment_digits(ink, multiple, page.is_scan)
    ]


class InkPage(NamedTuple):
    """The ink of an image.

    Attributes:
        ink: (H, W), 0 for paper to 1 for a stroke's full strength; of the image or a part of it.
        dark: whether the ink was darker than the paper.
        left: the part's first column, in pixels of the whole.
        top: the part's first row.
        scale: the pixels of the image per pixel of the whole.
        is_scan: whether the image is a small scan; see `paper_removal.is_small_scan`.
    """

    ink: Gray
    dark: bool
    left: int
    top: int
    scale: float
    is_scan: bool

    def to_image(self, *box: float) -> tuple[int, int, int, int]:
        """Return the box in the image of a box in the ink."""
        sides = zip((self.left, self.top) * 2, box, strict=True)
        left, top, right, bottom = (round((start + side) * self.scale) for start, side in sides)
        return left, top, right, bottom


def _find_ink(image: Image.Image, longest: int) -> InkPage:
    """Return the ink of an image, whose longer side is reduced to `longest` pixels.

    Raises:
        ValueError: the contrast is too low.
    """
    for view in _views(_reduce_huge(image), longest):
        dark = paper_removal.is_dark(view.gray)
        strength = paper_removal.ink_strength(view.gray, dark)
        full = paper_removal.full_strength(strength)
        if full >= MIN_CONTRAST:
            scale = max(image.size) / view.side
            is_scan = paper_removal.is_small_scan(view.gray)
            ink = np.clip(strength / full, 0, 1)
            return InkPage(ink, dark, view.left, view.top, scale, is_scan)
    raise ValueError("no digit in the image: its contrast is too low")


def _extract_form(
    page: InkPage,
    level: forms.LevelPage,
    digits: Mapping[form_cells.Cell, components.DigitComponents],
) -> list[DigitCrop]:
    """Extract the digits of a form, row by row.

    Raises:
        ValueError: all cells are empty.
    """
    padded = np.pad(level.ink, 1)
    crops = [
        DigitCrop(
            _crop(padded, digit),
            page.dark,
            page.to_image(*level.to_original(digit.box)),
            digit.wide,
            (cell.row, cell.column),
        )
        for cell, digit in digits.items()
    ]
    if not crops:
        raise ValueError("no digit in the image: all cells of the form are empty")
    return crops


def _crop(padded: Gray, digit: components.DigitComponents) -> NDArray[np.uint8]:
    """Crop the ink of one digit, with one pixel around it for the faint edges of strokes.

    Args:
        padded: the ink of the image, with one pixel of paper around it.
        digit: the digit.
    """
    from scipy import ndimage

    left, top, right, bottom = digit.box
    widened = ndimage.binary_dilation(np.pad(digit.mask, 1), np.ones((3, 3)))
    ink = padded[top : bottom + 2, left : right + 2]
    return np.asarray(np.rint(255 * ink * widened), dtype=np.uint8)


def upright(image: Image.Image, in_place: bool = False) -> Image.Image:
    """Rotate an image as its Exif orientation says; `in_place` saves the memory of a second one."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about each tag that is not a number
            if image.getexif().get(ExifTags.Base.Orientation) in range(2, 9):
                if not in_place:
                    return ImageOps.exif_transpose(image)
                ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # the Exif data is damaged, the pixels are not
        pass
    return image


def _reduce_huge(image: Image.Image) -> Image.Image:
    """Reduce a huge image, so that its copies fit in memory."""
    factor = max(image.size) // (2 * WORKING_SIDE)
    if factor < 2:
        return image
    if image.mode.startswith("I;16"):  # Pillow does not reduce this mode
        height, width = image.height // factor, image.width // factor
        values = np.asarray(image)[: height * factor, : width * factor]
        blocks = values.reshape(height, factor, width, factor)
        return Image.fromarray(blocks.mean(axis=(1, 3), dtype=np.float32))
    if image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK", "I", "F"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image.reduce(factor)


class View(NamedTuple):
    """One grayscale version of an image.

    Attributes:
        gray: brightness (H, W), of the image or a part of it.
        left: the part's first column, in pixels of the whole.
        top: the part's first row.
        side: the longer side of the whole.
    """

    gray: Gray
    left: int
    top: int
    side: int


def _views(image: Image.Image, longest: int) -> Iterator[View]:
    """Yield views of an image, reduced to `longest` pixels.

    The caller stops when the contrast is enough. They are: the sheet alone, if the image shows the
    table too; the whole; and each color, because red ink can be as bright as green paper.
    """
    whole = paper_removal.reduce(gray_of(image), longest)
    sheet = _find_sheet(whole)
    if sheet is not None:
        yield sheet
    yield View(whole, 0, 0, max(whole.shape))
    if image.mode in ("RGB", "RGBA", "CMYK", "P", "YCbCr", "LAB", "HSV"):
        for color in image.convert("RGB").split():
            yield View(paper_removal.reduce(gray_of(color), longest), 0, 0, max(whole.shape))


def gray_of(image: Image.Image) -> Gray:
    """Return the brightness of each pixel, (H, W) from 0 to 255, of an image in any mode."""
    if image.has_transparency_data and not _is_opaque(image):
        # Black or white paper, whichever has the higher contrast.
        colors = image.convert("RGBA")
        shade, alpha = np.asarray(colors.convert("L")), np.asarray(colors.getchannel("A"))
        light = (shade * (alpha / 255)).sum() > 127 * (alpha / 255).sum()
        paper = Image.new("RGBA", colors.size, "black" if light else "white")
        image = Image.alpha_composite(paper, colors)
    elif image.mode.startswith(("I", "F")):  # 16 bits and more: Pillow would clip them
        values = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0).clip(0, None)
        white = next((level for level in (1, 255) if values.max() <= level), values.max())
        return np.rint(values * np.float32(255 / white))
    return np.asarray(image.convert("L"), dtype=np.float32)


def _is_opaque(image: Image.Image) -> bool:
    """Return whether an image is RGBA but fully opaque, as an HTML canvas saves it."""
    return image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255)


def _find_sheet(gray: Gray) -> View | None:
    """Return the sheet in an image that shows the table too; None if there is none."""
    if paper_removal.is_small(gray):  # more often a thick digit than a sheet
        return None
    low, high = np.percentile(gray, (1, 99))
    bright = gray > (low + high) / 2
    bright_border = (paper_removal.border_of(gray) > (low + high) / 2).mean()
    if 1 - MIN_TABLE_BORDER < bright_border <= MIN_TABLE_BORDER:
        return None
    inside = bright if bright_border <= 0.5 else ~bright
    spans = []
    for axis in (1, 0):
        filled = np.flatnonzero(inside.mean(axis=axis) > 0.4)
        if len(filled) == 0:
            return None
        first, last = int(filled[0]), int(filled[-1]) + 1
        rim = 1 + (last - first) // 50
        spans.append(slice(first + rim, max(last - rim, first + rim + 1)))
    rows, columns = spans
    # A sheet is large, and mostly paper; a thick stroke is neither.
    sheet = inside[rows, columns]
    large = sheet.size > 0.2 * inside.size and min(sheet.shape) > 0.3 * max(sheet.shape)
    if sheet.mean() <= 0.8 or not large:
        return None
    return View(gray[rows, columns], columns.start, rows.start, max(gray.shape))
