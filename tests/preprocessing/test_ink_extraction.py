"""Only the ink of the digit is extracted."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps
from scipy import ndimage

from mnist_lightning.data.synthetic import draw_digits
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.ink_extraction import extract_digits
from tests.images import (
    SEVEN,
    draw_seven,
    gives_seven,
    scan,
    shifted_difference,
    to_array,
    to_image,
)


def test_ink_may_be_darker_or_lighter_than_the_paper() -> None:
    assert extract_digits(draw_seven())[0].dark
    assert not extract_digits(draw_seven(paper=20, ink=240))[0].dark
    assert gives_seven(draw_seven(paper=20, ink=240))
    assert gives_seven(draw_seven(paper=150, ink=90))


def test_a_gradient_of_light_and_the_edge_of_a_shadow_are_not_ink() -> None:
    slope = np.linspace(0.4, 1, 200)[:, None]
    assert gives_seven(to_image(to_array(draw_seven(ink=60)) * slope))
    shadow = np.where(np.indices((200, 200)).sum(axis=0) < 190, 0.55, 1)
    soft = ndimage.gaussian_filter(shadow, 6)
    assert gives_seven(to_image(to_array(draw_seven(ink=40)) * soft))


@pytest.mark.parametrize("light_ink", [False, True])
def test_on_even_paper_the_ink_may_be_of_any_width(light_ink: bool) -> None:
    image = Image.new("L", (220, 220), 250)
    ImageDraw.Draw(image).ellipse((50, 50, 170, 170), fill=10)
    (found,) = extract_digits(ImageOps.invert(image) if light_ink else image)
    assert found.ink[40:80, 40:80].min() == 255  # filled, not a ring


@pytest.mark.parametrize("side", [0.5, 0.6, 0.68])
def test_a_photo_in_a_white_margin_may_have_shadows(side: float) -> None:
    light = np.linspace(0.65, 1, 200)[:, None]
    photo = to_array(draw_seven(ink=40)) * light
    margin = round(100 / side - 100)
    page = np.pad(photo, margin, constant_values=255)
    assert gives_seven(to_image(page))


def test_noise_and_specks_are_not_ink() -> None:
    generator = np.random.default_rng(0)
    assert gives_seven(
        to_image(to_array(draw_seven()) - 20 * generator.standard_normal((200, 200)))
    )
    specked = to_array(draw_seven())
    for y, x in generator.integers(5, 190, (30, 2)):
        specked[y : y + 2, x : x + 2] = 0
    assert gives_seven(to_image(specked))


def test_faint_lines_of_the_paper_are_not_ink() -> None:
    ruled = to_array(draw_seven(paper=230, ink=40))
    ruled[::25] = np.minimum(ruled[::25], 180)
    ruled[:, ::25] = np.minimum(ruled[:, ::25], 180)
    assert gives_seven(to_image(ruled))


def test_dark_borders_are_not_part_of_the_digit() -> None:
    framed = to_array(draw_seven())
    framed[:4] = framed[-6:] = 0
    framed[:, :3] = 0
    assert gives_seven(to_image(framed))


def test_a_detached_stroke_is_part_of_the_digit() -> None:
    whole, broken = to_array(draw_seven()), to_array(draw_seven())
    broken[:, 100:108] = 255  # through the upper bar and the short one
    (crop,) = extract_digits(to_image(broken))
    first_column = 108 - crop.box[0] + 1
    assert (crop.ink[:, first_column:] > 127).sum() == pytest.approx(
        (whole < 127)[:, 108:].sum(), rel=0.1
    )


def test_a_digit_that_touches_the_border_is_found() -> None:
    tight = draw_seven().crop((57, 45, 146, 157))
    assert gives_seven(tight)


def test_a_thin_pen_is_as_black_as_a_thick_one() -> None:
    thin = mnist_format.from_image(draw_seven(size=600, width=6))
    assert (thin > 250).sum() > 0.3 * (thin > 40).sum()


def test_blank_paper_has_no_digit() -> None:
    generator = np.random.default_rng(0)
    for level in (0, 20, 128, 255):
        with pytest.raises(ValueError, match="no digit"):
            extract_digits(
                to_image(np.full((90, 120), level) + generator.standard_normal((90, 120)))
            )


@pytest.mark.parametrize(("side", "margin"), [(8, 2), (16, 0), (16, 2), (32, 0), (32, 2)])
@pytest.mark.parametrize("one_bit", [True, False])
@pytest.mark.parametrize("light_ink", [False, True])
def test_small_scans_give_all_their_ink(
    side: int, margin: int, one_bit: bool, light_ink: bool
) -> None:
    digits, labels = draw_digits(100, seed=3)
    differences = []
    for digit in digits[labels != 1]:  # some ones without a margin are ink alone
        image = scan(digit, side, one_bit, margin)
        expected = mnist_format.from_ink(255 - np.asarray(image))
        found = mnist_format.from_image(ImageOps.invert(image) if light_ink else image)
        differences.append(shifted_difference(found, expected))
    assert max(differences) < (1 if one_bit else 8)


def small_digit() -> NDArray[np.float64]:
    """Return a digit (40, 40) of a scan, with a margin."""
    return to_array(scan(SEVEN, 30, one_bit=False, margin=5).resize((40, 40)))


def gives_small_digit(changed: NDArray[np.float64]) -> bool:
    expected = mnist_format.from_image(to_image(small_digit()))
    return shifted_difference(mnist_format.from_image(to_image(changed)), expected) < 12


def test_a_line_at_the_border_of_a_small_scan_is_not_ink() -> None:
    for place in (np.s_[:, :2], np.s_[-3:]):
        lined = small_digit()
        lined[place] = 0
        assert gives_small_digit(lined)


def test_a_small_photo_may_have_a_shadow() -> None:
    corner = np.where(np.indices((40, 40)).sum(axis=0) < 25, 200 / 255, 1)
    slope = np.minimum(1.15 * np.linspace(0.6, 1, 40)[:, None], 1)
    for light in (corner, slope):
        assert gives_small_digit(small_digit() * light)


@pytest.mark.parametrize("count", [2, 4])
def test_one_digit_is_read_from_a_small_image_of_several(count: int) -> None:
    one = 255 - np.asarray(scan(draw_digits(10, seed=3)[0][0], 20, one_bit=False, margin=4))
    image = Image.fromarray(255 - np.concatenate([one] * count, axis=1))
    (crop,) = extract_digits(image, multiple=False)
    assert crop.ink.shape[1] <= 24
    assert len(extract_digits(image, multiple=True)) == count


def test_a_stroke_in_many_pieces_is_one_digit() -> None:
    dashes = np.full((300, 200), 255)
    dashes[40:260, 95:105] = 0
    dashes[50::20] = dashes[51::20] = 255
    (crop,) = extract_digits(to_image(dashes))
    assert crop.box == (95, 40, 105, 260)


@pytest.mark.parametrize("light_ink", [False, True])
def test_the_paper_of_a_close_crop_is_at_its_corners(light_ink: bool) -> None:
    zero = Image.new("L", (120, 160), 255)
    ImageDraw.Draw(zero).ellipse((0, 0, 119, 159), fill=0)
    ImageDraw.Draw(zero).ellipse((45, 60, 75, 100), fill=255)
    (crop,) = extract_digits(ImageOps.invert(zero) if light_ink else zero)
    assert crop.dark is not light_ink
    assert crop.ink[80, 20] == 255
    assert crop.ink[80, 60] == 0


@pytest.mark.parametrize("table", [0, 40, 110])
@pytest.mark.parametrize("rim", [20, 80])
def test_the_table_around_the_sheet_is_ignored(table: int, rim: int) -> None:
    framed = np.pad(to_array(draw_seven(paper=240)), rim, constant_values=table)
    assert gives_seven(to_image(framed))
    (crop,) = extract_digits(to_image(framed))
    (alone,) = extract_digits(draw_seven(paper=240))
    assert np.abs(np.array(crop.box) - np.array(alone.box) - rim).max() <= 3


def test_a_thick_light_digit_is_not_taken_for_a_sheet() -> None:
    for width in (10, 40, 60):
        for size in (100, 200):
            thick = draw_seven(size=size, paper=0, ink=255, width=width * size // 200)
            assert not extract_digits(thick)[0].dark


@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        ((220, 40, 40), (60, 130, 60)),
        ((255, 255, 0), (255, 255, 255)),
        ((0, 0, 255), (0, 0, 0)),
    ],
)
def test_ink_may_differ_from_the_paper_only_in_color(
    ink: tuple[int, int, int], paper: tuple[int, int, int]
) -> None:
    share = (255 - to_array(draw_seven())[:, :, None]) / 255
    mixed = share * np.array(ink) + (1 - share) * np.array(paper)
    assert gives_seven(to_image(mixed))


def test_images_with_twelve_bits_or_with_nan_are_read() -> None:
    gray = to_array(draw_seven())
    assert gives_seven(Image.fromarray((gray * 5).astype(np.uint16)))
    holes = (gray / 255).astype(np.float32)
    holes[0, 0], holes[0, 1] = np.nan, np.inf
    assert extract_digits(Image.fromarray(holes))
    large = draw_seven(size=6400, width=320)
    assert gives_seven(Image.fromarray(np.asarray(large).astype(np.uint16) * 257))
