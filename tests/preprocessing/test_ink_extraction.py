"""The digit's ink is found, and nothing else."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.ink_extraction import trace

Gray = NDArray[np.uint8]


def drawn(size: int = 200, paper: int = 255, ink: int = 0, width: int = 10) -> Image.Image:
    """A seven with a bar, as a person draws it."""
    picture = Image.new("L", (size, size), paper)
    pen, unit = ImageDraw.Draw(picture), size / 10
    for line in ([(3, 2.5), (7, 2.5), (4.5, 7.5)], [(4.5, 5), (6.8, 5)]):
        pen.line([(x * unit, y * unit) for x, y in line], fill=ink, width=width, joint="curve")
    return picture


SEVEN = mnist_format.from_picture(drawn())


def like_the_seven(picture: Image.Image) -> bool:
    """Whether a picture is read as that seven is."""
    return is_the_seven(mnist_format.from_picture(picture))


def is_the_seven(ink: Gray, but_for: float = 0.1) -> bool:
    """Equal but for so much of the ink, and a pixel's shift (by rounding the center of mass)."""
    found = ink.astype(int)
    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    differences = [np.abs(np.roll(found, shift, (0, 1)) - SEVEN).mean() for shift in shifts]
    return float(min(differences)) < but_for * float(SEVEN.mean())


def array(picture: Image.Image) -> NDArray[np.float64]:
    return np.asarray(picture).astype(float)


def picture(values: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def test_ink_may_be_darker_or_lighter_than_its_paper() -> None:
    assert trace(drawn())[0].dark
    assert not trace(drawn(paper=20, ink=240))[0].dark
    assert like_the_seven(drawn(paper=20, ink=240))
    assert like_the_seven(drawn(paper=150, ink=90))


def test_a_slope_of_light_and_a_shadow_s_edge_are_no_ink() -> None:
    slope = np.linspace(0.4, 1, 200)[:, None]
    assert like_the_seven(picture(array(drawn(ink=60)) * slope))
    shadow = np.where(np.indices((200, 200)).sum(axis=0) < 190, 0.55, 1)
    soft = ndimage.gaussian_filter(shadow, 6)
    assert like_the_seven(picture(array(drawn(ink=40)) * soft))


def test_grain_and_specks_are_no_ink() -> None:
    generator = np.random.default_rng(0)
    assert like_the_seven(picture(array(drawn()) - 20 * generator.standard_normal((200, 200))))
    specked = array(drawn())
    for y, x in generator.integers(5, 190, (30, 2)):
        specked[y : y + 2, x : x + 2] = 0
    assert like_the_seven(picture(specked))


def test_faint_lines_of_the_paper_are_no_ink() -> None:
    ruled = array(drawn(paper=230, ink=40))
    ruled[::25] = np.minimum(ruled[::25], 180)
    ruled[:, ::25] = np.minimum(ruled[:, ::25], 180)
    assert like_the_seven(picture(ruled))


def test_what_the_border_cuts_off_is_no_part_of_the_digit() -> None:
    framed = array(drawn())
    framed[:4] = framed[-6:] = 0
    framed[:, :3] = 0
    assert like_the_seven(picture(framed))


def test_a_detached_stroke_stays() -> None:
    whole, broken = array(drawn()), array(drawn())
    broken[:, 100:108] = 255  # through the upper bar and the short one
    (found,) = trace(picture(broken))
    beyond = 108 - found.box[0] + 1
    assert (found.ink[:, beyond:] > 127).sum() == pytest.approx(
        (whole < 127)[:, 108:].sum(), rel=0.1
    )


def test_a_digit_that_touches_the_border_stays() -> None:
    tight = drawn().crop((57, 45, 146, 157))
    assert like_the_seven(tight)


def test_a_thin_pen_is_as_black_as_a_thick_one() -> None:
    thin = mnist_format.from_picture(drawn(size=600, width=6))
    assert (thin > 250).sum() > 0.3 * (thin > 40).sum()


def test_blank_paper_has_no_digit() -> None:
    generator = np.random.default_rng(0)
    for level in (0, 20, 128, 255):
        with pytest.raises(ValueError, match="no digit"):
            trace(picture(np.full((90, 120), level) + generator.standard_normal((90, 120))))


@pytest.mark.parametrize("table", [0, 40, 110])
@pytest.mark.parametrize("rim", [20, 80])
def test_what_the_sheet_lies_on_is_not_looked_at(table: int, rim: int) -> None:
    framed = np.pad(array(drawn(paper=240)), rim, constant_values=table)
    assert like_the_seven(picture(framed))
    (found,) = trace(picture(framed))
    (alone,) = trace(drawn(paper=240))
    assert np.abs(np.array(found.box) - np.array(alone.box) - rim).max() <= 3


def test_a_thick_light_digit_is_no_sheet() -> None:
    for width in (10, 40, 60):
        for size in (100, 200):
            thick = drawn(size=size, paper=0, ink=255, width=width * size // 200)
            assert not trace(thick)[0].dark


@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        ((220, 40, 40), (60, 130, 60)),
        ((255, 255, 0), (255, 255, 255)),
        ((0, 0, 255), (0, 0, 0)),
    ],
)
def test_ink_may_differ_from_its_paper_by_color_alone(
    ink: tuple[int, int, int], paper: tuple[int, int, int]
) -> None:
    share = (255 - array(drawn())[:, :, None]) / 255
    mixed = share * np.array(ink) + (1 - share) * np.array(paper)
    assert like_the_seven(picture(mixed))


def test_twelve_bits_in_sixteen_and_what_is_no_number_are_read() -> None:
    gray = array(drawn())
    assert like_the_seven(Image.fromarray((gray * 5).astype(np.uint16)))
    holes = (gray / 255).astype(np.float32)
    holes[0, 0], holes[0, 1] = np.nan, np.inf
    assert trace(Image.fromarray(holes))
    large = drawn(size=6400, width=320)
    assert like_the_seven(Image.fromarray(np.asarray(large).astype(np.uint16) * 257))
