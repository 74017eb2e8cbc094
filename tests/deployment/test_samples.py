"""The samples, and images that are not digits, are read by the pretrained network."""

from pathlib import Path

import pytest

from mnist_lightning import load
from mnist_lightning.evaluation import non_digits
from mnist_lightning.inference import Recognizer

ROOT = Path(__file__).parent.parent.parent
DIGITS = {"seven": "7", "chalk": "3", "page": "20261127", "ruled": "58064"}


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return load("pretrained")


@pytest.mark.parametrize("name", DIGITS)
def test_each_digit_of_a_sample_is_read_with_confidence(recognizer: Recognizer, name: str) -> None:
    digits = recognizer.read(ROOT / "samples" / f"{name}.png")
    assert "".join(str(digit.label) for digit in digits) == DIGITS[name]
    assert not any(digit.unsure or digit.not_digit for digit in digits)


def test_the_cells_of_the_form_are_read(recognizer: Recognizer) -> None:
    read = recognizer.read(ROOT / "samples" / "form.png")
    cells = {digit.digit.cell: str(digit.label) for digit in read}
    text = "31415 9265"
    assert cells == {(i // 5 + 1, i % 5 + 1): t for i, t in enumerate(text) if t != " "}
    assert not any(digit.unsure or digit.not_digit for digit in read)


def test_a_scribble_is_probably_not_a_digit(recognizer: Recognizer) -> None:
    (read,) = recognizer.read(ROOT / "samples" / "scribble.png")
    assert read.not_digit
    assert "probably not a digit" in repr(read)


def test_a_blank_page_has_no_digit(recognizer: Recognizer) -> None:
    with pytest.raises(ValueError, match="no digit in the image"):
        recognizer.read(ROOT / "samples" / "blank.png")


def test_each_sample_is_tested() -> None:
    names = {path.stem for path in (ROOT / "samples").iterdir()}
    assert names == {*DIGITS, "form", "scribble", "blank"}


@pytest.mark.slow
def test_few_non_digits_of_new_kinds_are_read_with_confidence(recognizer: Recognizer) -> None:
    kinds = [draw for kind, draw in non_digits.KINDS.items() if kind != non_digits.SIMILAR]
    images = [image for draw in kinds for image in draw()]
    assert len(images) >= 300
    confident = 0
    for image in images:
        digits = recognizer.read(image)
        confident += any(not digit.unsure for digit in digits)
    assert confident <= 0.05 * len(images)
