"""Scanned forms: each digit with its row and its column."""

import json
from time import process_time

import numpy as np
import pytest
from PIL import Image, ImageDraw

import mnist_lightning
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.form_cells import find_cells, is_form
from mnist_lightning.preprocessing.mnist_format import find_digits
from tests.conftest import Command
from tests.forms import STYLES, Style, boxes_of_ink, draw_form, generated, squared_paper, zeros
from tests.images import draw_page

ROWS, COLUMNS = 4, 6


@pytest.mark.parametrize("name", STYLES)
def test_each_digit_has_the_row_and_column_of_its_cell(name: str) -> None:
    images, labels = generated(ROWS * COLUMNS)
    empty = [3, 10, 11]
    images[empty] = 0
    page, _ = draw_form(images, ROWS, COLUMNS, STYLES[name])
    found = find_digits(page)
    places = list(np.ndindex(ROWS, COLUMNS))
    expected = [
        (row + 1, column + 1) for number, (row, column) in enumerate(places) if number not in empty
    ]
    assert [digit.cell for digit in found] == expected
    read = mnist_lightning.load("pretrained").read_digits(found)
    wanted = [label for number, label in enumerate(labels) if number not in empty]
    correct = sum(digit.label == label for digit, label in zip(read, wanted, strict=True))
    assert correct >= len(wanted) - 1


@pytest.mark.parametrize("degrees", [0, 3])
def test_boxes_are_in_pixels_of_the_original_page(degrees: float) -> None:
    images, _ = generated(ROWS * COLUMNS)
    page, _ = draw_form(images, ROWS, COLUMNS, Style(degrees=degrees, jitter=0))
    large = page.resize((3 * page.width, 3 * page.height))
    middle = np.array(page.size) / 2
    flat = draw_form(images, ROWS, COLUMNS, Style(jitter=0))[0]
    for digit in find_digits(large):
        assert digit.cell is not None
        row, column = digit.cell
        center = np.array([80 + 80 * (column - 0.5), 160 + 80 * (row - 0.5)])
        angle = np.radians(degrees)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        expected = 3 * (turn @ (center - np.array(flat.size) / 2) + middle)
        left, top, right, bottom = digit.box
        assert np.abs(np.array([left + right, top + bottom]) / 2 - expected).max() < 60


def test_a_digit_that_divides_its_cell_is_found() -> None:
    images, _ = generated(9)
    images[4] = 0
    page, _ = draw_form(images, 3, 3, Style(jitter=0))
    ImageDraw.Draw(page).line([(200, 238), (200, 322)], fill=30, width=6)  # in the middle cell
    assert [digit.cell for digit in find_digits(page)] == [
        (r, c) for r in (1, 2, 3) for c in (1, 2, 3)
    ]


@pytest.mark.parametrize("broken", [0, 2, 4])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_row_or_column_is_found_if_each_of_its_boxes_has_a_gap(broken: int, axis: int) -> None:
    ink = boxes_of_ink(5, 5)
    band = np.moveaxis(ink, axis, 0)[40 + 60 * broken : 90 + 60 * broken]
    band[20:26] = 0  # open the two sides of each box that lie across the band
    expected = [(row + 1, column + 1) for row, column in np.ndindex(5, 5)]
    assert [cell[:2] for cell in find_cells(ink)] == expected


def test_the_gap_between_two_tables_is_no_row() -> None:
    ink = boxes_of_ink(5, 4)
    ink[160:210] = 0
    expected = [(row + 1, column + 1) for row, column in np.ndindex(4, 4)]
    assert [cell[:2] for cell in find_cells(ink)] == expected


@pytest.mark.parametrize("gray", [0, 90, 180])
def test_a_filled_header_is_no_row(gray: int) -> None:
    page, _ = draw_form(generated(24)[0], ROWS, COLUMNS, Style(jitter=0))
    ImageDraw.Draw(page).rectangle((80, 80, 560, 160), fill=gray)
    expected = [(row + 1, column + 1) for row, column in np.ndindex(ROWS, COLUMNS)]
    assert [digit.cell for digit in find_digits(page)] == expected


def test_a_stroke_from_a_neighbor_is_not_part_of_a_small_cell() -> None:
    page, _ = draw_form(generated(24)[0], ROWS, COLUMNS, Style(cell=(60, 60), jitter=0))
    pen = ImageDraw.Draw(page)
    for row, column in np.ndindex(ROWS, COLUMNS):
        left, top = 60 + 60 * column, 120 + 60 * row
        pen.line((left + 8, top - 6, left + 5, top + 14), fill=40, width=3)
    expected = [(row + 1, column + 1) for row, column in np.ndindex(ROWS, COLUMNS)]
    assert [digit.cell for digit in find_digits(page)] == expected


def test_many_rows_and_columns_take_little_time() -> None:
    ink = np.zeros((1600, 1600), np.float32)
    for number in range(200):
        top = left = 10 + 7 * number
        ink[top : top + 13, left : left + 13] = 1
        ink[top + 2 : top + 11, left + 2 : left + 11] = 0
    start = process_time()
    find_cells(ink)
    assert process_time() - start < 5


def test_an_empty_form_is_reported() -> None:
    page, _ = draw_form(np.zeros((9, 28, 28), dtype=np.uint8), 3, 3, Style())
    with pytest.raises(ValueError, match="all cells of the form are empty"):
        find_digits(page)


def test_a_fine_pattern_is_no_form_and_needs_little_memory() -> None:
    ink = np.zeros((1600, 1600), dtype=np.float32)
    ink[::14] = ink[:, ::14] = 1
    assert not is_form(ink)
    assert find_cells(ink) == []


@pytest.mark.parametrize(
    ("page", "count"),
    [(draw_page([(30, 20), (400, 40)]), 2), (zeros(), 6), (squared_paper(), 1)],
    ids=["a page of digits", "zeros", "squared paper"],
)
def test_other_pages_are_no_forms(page: Image.Image, count: int) -> None:
    found = find_digits(page)
    assert [digit.cell for digit in found] == [None] * count


def test_one_digit_is_read_from_a_form_if_only_one_is_wanted() -> None:
    page, _ = draw_form(generated(9)[0], 3, 3, Style())
    assert mnist_format.from_image(page).shape == (28, 28)
    assert len(find_digits(page, multiple=False)) == 1


def test_predict_shows_the_table(command: Command) -> None:
    images, _ = generated(6)
    images[4] = 0
    draw_form(images, 2, 3, Style())[0].save("form.png")
    labels = [digit.label for digit in mnist_lightning.load("pretrained").read("form.png")]
    printed = command("predict", "form.png").out.splitlines()
    assert printed[0] == "form.png  5 digits in a form:"
    assert printed[1].split() == [str(label) for label in labels[:3]]
    assert printed[2].split() == [str(labels[3]), ".", str(labels[4])]
    rows = json.loads(command("predict", "form.png", "--json").out)
    assert [(row["row"], row["column"]) for row in rows] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 3)]
    header, *lines = command("predict", "form.png", "--csv").out.splitlines()
    assert header.endswith(",row,column,error")
    assert lines[-1].endswith(",2,3,")
