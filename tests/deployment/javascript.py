"""Run the JavaScript of a page without a server in V8, and compare it with Python."""

import json
import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from py_mini_racer import MiniRacer

from mnist_lightning.deployment import html_export
from mnist_lightning.preprocessing import mnist_format

TOLERANCE = 2  # of 255, for each pixel of the 28x28
FIND = """
function find(data, width, height, multiple) {
  try {
    const digits = mnistFormat.findDigits({ width, height, data }, multiple);
    return JSON.stringify(digits.map((digit) => ({ ...digit, ink: Array.from(digit.ink.data) })));
  } catch (error) {
    return JSON.stringify(error.message);
  }
}
"""


def start() -> MiniRacer:
    """Return an engine with the scripts that read images."""
    engine = MiniRacer()
    engine.eval(html_export.prediction_script() + FIND)
    return engine


def pass_array(engine: MiniRacer, array: NDArray[Any], kind: str) -> None:
    """Put an array into `given.data`, with `given.width` and `given.height`."""
    height, width = array.shape[:2]
    buffer: Any = engine.eval(
        f"var given = {{ width: {width}, height: {height}, data: new {kind}({array.size}) }};"
        "given.data.buffer"
    )
    np.frombuffer(buffer, array.dtype)[:] = array.ravel()


def evaluate(engine: MiniRacer, array: NDArray[Any], expression: str) -> NDArray[np.float64]:
    """Evaluate an expression of `given` to an array (H, W)."""
    pass_array(engine, array, {"u": "Uint8Array", "f": "Float32Array"}[array.dtype.kind])
    text = engine.eval(
        f"(({{ width, height, data }}) => JSON.stringify([height, width, ...data]))({expression})"
    )
    height, width, *values = json.loads(str(text))
    return np.array(values).reshape(height, width)


def find_in_javascript(engine: MiniRacer, image: Image.Image, multiple: bool | None) -> Any:
    pass_array(engine, np.asarray(image.convert("RGBA")), "Uint8ClampedArray")
    code = f"find(given.data, given.width, given.height, {json.dumps(multiple)})"
    return json.loads(str(engine.eval(code)))


def assert_equal_digits(
    engine: MiniRacer, image: Image.Image, multiple: bool | None = None
) -> None:
    actual = find_in_javascript(engine, image, multiple)
    if isinstance(actual, str):
        with pytest.raises(ValueError, match=re.escape(actual)):
            mnist_format.find_digits(image, multiple)
        return
    expected = mnist_format.find_digits(image, multiple)
    assert len(actual) == len(expected)
    for digit, other in zip(actual, expected, strict=True):
        cell = digit["cell"] and tuple(digit["cell"])
        assert (digit["dark"], tuple(digit["box"]), digit["wide"], cell) == other[1:]
        assert np.abs(np.array(digit["ink"]) - other.ink.ravel()).max() <= TOLERANCE
