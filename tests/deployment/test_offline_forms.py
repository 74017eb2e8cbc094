"""Forms in the page without a server: the same cells and digits as in Python."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from py_mini_racer import MiniRacer

from mnist_lightning.preprocessing.form_cells import find_cells, is_form
from tests.deployment.javascript import assert_equal_digits, evaluate, pass_array
from tests.forms import STYLES, Style, boxes_of_ink, draw_form, generated, squared_paper, zeros
from tests.images import draw_page

pytestmark = pytest.mark.slow

PAGES = {
    **{name: draw_form(generated(9)[0], 3, 3, style)[0] for name, style in STYLES.items()},
    "empty": draw_form(np.zeros((9, 28, 28), dtype=np.uint8), 3, 3, Style())[0],
    "squared paper": squared_paper(),
    "zeros": zeros(),
    "no form": draw_page([(30, 20), (400, 40)]),
    "large": draw_form(generated(9)[0], 3, 3, Style(degrees=1, cell=(700, 700), line=9))[0],
}


@pytest.mark.parametrize("name", PAGES)
def test_digits_of_forms_are_found_as_in_python(engine: MiniRacer, name: str) -> None:
    assert_equal_digits(engine, PAGES[name], None)


@pytest.mark.parametrize("seed", range(20))
def test_the_cells_of_a_damaged_form_are_found_as_in_python(engine: MiniRacer, seed: int) -> None:
    random = np.random.default_rng(seed)
    ink = boxes_of_ink(4, 5)
    ink *= random.uniform(0.05, 1)
    for _ in range(random.integers(20)):
        top, left = random.integers(0, ink.shape)
        height, width = random.choice([2, 3, 15, 60], 2)
        ink[top : top + height, left : left + width] = random.choice([0, 0, 0.3, 1])
    ink = np.clip(ink + random.normal(0, 0.02, ink.shape), 0, 1).astype(np.float32)
    pass_array(engine, ink, "Float32Array")
    names = ("row", "column", "left", "top", "right", "bottom")
    cells = json.loads(str(engine.eval("JSON.stringify(formCells.findCells(given))")))
    assert [tuple(cell[name] for name in names) for cell in cells] == find_cells(ink)
    assert engine.eval("formCells.isForm(given)") == is_form(ink)


@pytest.mark.parametrize("sides", [(39, 30), (40, 30), (26, 20), (299, 230), (300, 230)])
def test_the_largest_ratio_of_sides_is_the_same_as_in_python(
    engine: MiniRacer, sides: tuple[int, int]
) -> None:
    ink = np.ones((320, 1000), np.float32)
    ink[0] = ink[-1] = ink[:, 0] = ink[:, -1] = 0
    for left, side in zip((10, 330, 660), (*sides, sides[1]), strict=True):
        ink[10 : 10 + side, left : left + side] = 0
    pass_array(engine, ink, "Float32Array")
    assert engine.eval("formCells.isForm(given)") == is_form(ink)
    assert is_form(ink) == (sides[0] / sides[1] < 1.301)


@pytest.mark.parametrize("angle", [0.0, 0.01, -0.05, 0.09])
def test_images_are_rotated_as_in_pillow(engine: MiniRacer, angle: float) -> None:
    image = np.random.default_rng(0).random((37, 53), dtype=np.float32)
    expected = Image.fromarray(image).rotate(
        math.degrees(angle), Image.Resampling.BICUBIC, expand=True
    )
    rotated = evaluate(engine, image, f"pillow.rotate(given, {angle})")
    assert rotated == pytest.approx(np.asarray(expected), abs=1e-6)
