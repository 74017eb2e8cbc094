"""Connected components, the digits that they form, and ruled lines."""

import time

import numpy as np
import pytest
from scipy import ndimage

from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.components import label_components
from mnist_lightning.preprocessing.ink_extraction import extract_digits
from tests.images import draw_page, draw_seven, gives_seven, is_seven, seven_box, to_array, to_image


def test_components_equal_those_of_scipy() -> None:
    generator = np.random.default_rng(0)
    for density in (0.1, 0.3, 0.5):
        mask = generator.random((40, 61)) < density
        ink = generator.random(mask.shape).astype(np.float32)
        labels, parts = label_components(mask, ink)
        expected, count = ndimage.label(mask, np.ones((3, 3)))
        assert len(parts) == count
        # The same components; their numbers may differ.
        pairs = set(zip(labels.ravel().tolist(), expected.ravel().tolist(), strict=True))
        assert len(pairs) == count + 1
        for part in parts:
            rows, columns = np.nonzero(labels == part.label)
            box = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
            assert part[1:5] == box
            assert part.mass == pytest.approx(ink[labels == part.label].sum(), rel=1e-5)


@pytest.mark.parametrize("multiple", [None, True])
def test_several_digits_are_found_in_reading_order(multiple: bool | None) -> None:
    places = [(30, 20), (170, 0), (400, 40), (0, 260), (160, 300), (500, 280)]
    digits = mnist_format.find_digits(draw_page(places), multiple)
    assert len(digits) == len(places)
    for digit, place in zip(digits, places, strict=True):
        assert np.abs(np.array(digit.box) - seven_box(place)).max() <= 3
        assert digit.dark
        assert not digit.wide
        assert is_seven(digit.ink, tolerance=0.2)


def test_boxes_are_in_pixels_of_the_original_image() -> None:
    large = draw_page([(0, 0), (300, 0)]).resize((2700, 2100))
    for digit, place in zip(mnist_format.find_digits(large), [(0, 0), (300, 0)], strict=True):
        assert np.abs(np.array(digit.box) - 3 * seven_box(place)).max() <= 12


def test_one_digit_is_not_split_into_several() -> None:
    broken = to_array(draw_seven())
    broken[:, 100:106] = 255  # cuts the short bar and the upper one in two
    blot = to_array(draw_seven(size=300))
    blot[20:30, 20:30] = blot[270:275, 100:140] = 0
    for seven in (draw_seven(), to_image(broken), to_image(blot)):
        for multiple in (None, False):
            assert len(mnist_format.find_digits(seven, multiple)) == 1


def test_with_multiple_false_the_largest_digit_is_found() -> None:
    pair = draw_page([(0, 0), (300, 0)])
    pair.paste(draw_seven(size=400, width=20), (300, 200))
    (digit,) = mnist_format.find_digits(pair, multiple=False)
    assert digit.box[0] > 300
    assert digit.box[1] > 200


def test_touching_digits_are_reported_as_wide() -> None:
    touching = draw_page([(0, 0), (85, 0)])
    (digit,) = mnist_format.find_digits(touching)
    assert digit.wide


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.04, -0.07])
def test_ruled_lines_as_dark_as_the_pen_are_removed(slope: float) -> None:
    rows, columns = np.indices((200, 200))
    for across in (rows + slope * columns, columns + slope * rows):
        ruled = to_array(draw_seven(ink=30))
        ruled[(across % 40).round() < 3] = 30
        assert gives_seven(to_image(ruled))


def test_many_digits_on_ruled_paper_are_found() -> None:
    places = [(left, top) for top in (0, 220) for left in (0, 160, 320, 480)]
    page = to_array(draw_page(places))
    for row in range(3):
        page[15 + row :: 45] = 30
    assert len(mnist_format.find_digits(to_image(page))) == len(places)


def test_squared_paper_as_dark_as_the_pen_is_removed() -> None:
    squared = to_array(draw_seven(size=400, width=20, ink=30))
    squared[15::40] = squared[16::40] = 30
    squared[:, 15::40] = squared[:, 16::40] = 30
    assert gives_seven(to_image(squared))


def test_a_stroke_from_border_to_border_is_not_a_ruled_line() -> None:
    left, top, right, bottom = seven_box((0, 0)).tolist()
    tight = draw_seven().crop((left, top, right, bottom))
    (crop,) = extract_digits(tight)
    assert crop.box == (0, 0, *tight.size)
    assert (crop.ink > 127).sum() > 0.95 * (to_array(tight) < 127).sum()


@pytest.mark.slow
def test_a_pattern_of_many_components_is_read_in_bounded_time() -> None:
    dots = np.full((800, 800), 255.0)
    dots[2::4, 2::4] = dots[3::4, 2::4] = 0
    for multiple in (None, True, False):
        started = time.process_time()
        assert len(mnist_format.find_digits(to_image(dots), multiple)) == 1
        assert time.process_time() - started < 5
