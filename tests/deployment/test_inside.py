"""Inside the network: the activations equal torch's, and the explanations follow from them."""

import base64
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from torch import fx, nn

from mnist_lightning import load
from mnist_lightning.deployment import neighbors
from mnist_lightning.deployment.network_description import describe, traced
from mnist_lightning.networks.registry import ARCHITECTURES
from mnist_lightning.preprocessing.normalization import normalize
from tests.deployment.conftest import serving
from tests.deployment.test_page import EIGHT, THREE, Stroke, arc, draw

pytestmark = pytest.mark.slow

ONE = [[(0.5, 0.2 + 0.03 * step) for step in range(20)]]
NINE = [arc(0.5, 0.35, 0.15, 0.15, 0, 360), [(0.65, 0.3 + 0.025 * step) for step in range(20)]]
DRAWINGS = 100
MINUS = "\u2212"
# The pixels that the page computes for drawings, in base64.
PIXELS = """(drawings) => drawings.map((points) => {
  const image = currentImage(points.map((stroke) => stroke.map(([x, y]) => [420 * x, 420 * y])));
  const { pixels } = backend.reader.find(pixelsOf(image), "false")[0];
  return btoa(String.fromCharCode(...pixels));
})"""
# The shapes of every step, and the values of all steps for each image, in base64.
VALUES = """([model, images]) => {
  const reader = makeReader(model);
  const encode = (bytes) => {
    let text = "";
    for (let i = 0; i < bytes.length; i += 8192) {
      text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    }
    return btoa(text);
  };
  return images.map((text) => {
    const { values } = reader.classify(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
    const steps = values.slice(1);
    return steps.map(({ shape, data }) =>
      [shape, encode(new Uint8Array(Float32Array.from(data).buffer))]);
  });
}"""


@pytest.fixture(scope="module")
def sheet(browser: Browser, pretrained_address: str) -> Iterator[Page]:
    """The page with the pretrained network, whose layers are loaded; no errors."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(pretrained_address)
    expect(page.locator("#layers canvas")).to_have_count(18)
    yield page
    assert messages == []
    context.close()


@pytest.fixture(autouse=True)
def _empty_sheet(sheet: Page) -> None:
    sheet.evaluate("clear(); scrollTo(0, 0)")


def random_drawing(generator: random.Random) -> list[Stroke]:
    """Return one to three random curved strokes."""
    return [
        arc(
            x=generator.uniform(0.3, 0.7),
            y=generator.uniform(0.3, 0.7),
            width=generator.uniform(0.02, 0.25),
            height=generator.uniform(0.02, 0.25),
            start=generator.uniform(0, 360),
            end=generator.uniform(0, 720),
        )
        for _ in range(generator.randint(1, 3))
    ]


@pytest.fixture(scope="module")
def drawings(sheet: Page) -> list[str]:
    """The 28x28 pixels of random drawings."""
    generator = random.Random(0)
    return list(sheet.evaluate(PIXELS, [random_drawing(generator) for _ in range(DRAWINGS)]))


def decode(text: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(28, 28)


class Recorder(fx.Interpreter):
    """Runs a graph and keeps the value of each call that depends on the image."""

    def run_node(self, node: fx.Node) -> Any:
        """Run a node; keep its value."""
        value = super().run_node(node)
        if node.op == "placeholder" or self.computed & set(node.all_input_nodes):
            self.computed.add(node)
            if node.op == "call_function" and isinstance(value, torch.Tensor):
                self.values.append(value)
        return value

    def record(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the values of all calls for an image."""
        self.values: list[torch.Tensor] = []
        self.computed: set[fx.Node] = set()
        with torch.inference_mode():
            self.run(image)
        return [value.clone() for value in self.values]


@pytest.mark.parametrize(
    ("name", "exact"),
    [("pretrained", False), *((name, True) for name in ("pretrained", *sorted(ARCHITECTURES)))],
)
def test_activations_equal_those_of_torch(
    sheet: Page, drawings: list[str], name: str, exact: bool
) -> None:
    network: nn.Module = load("pretrained").network
    if name != "pretrained":
        network = ARCHITECTURES[name]().eval()
    calibration = load("pretrained").calibration._asdict()
    model = describe(network, exact=exact) | calibration | {"mean": 0.1307, "std": 0.3081}
    recorder = Recorder(traced(network).module())
    for start in range(0, DRAWINGS, 10):
        images = drawings[start : start + 10]
        shown = sheet.evaluate(VALUES, [json.loads(json.dumps(model)), images])
        for text, layers in zip(images, shown, strict=True):
            pixels = torch.from_numpy(decode(text).copy())
            expected = recorder.record(normalize(pixels[None]))
            assert len(layers) == len(expected)
            for (shape, values), tensor in zip(layers, expected, strict=True):
                assert shape == list(tensor.shape[1:])
                actual = np.frombuffer(base64.b64decode(values), np.float32)
                difference = np.abs(actual - tensor.flatten().numpy()).max()
                assert difference <= 1e-3 * float(tensor.abs().max())


def test_every_layer_is_shown_and_changes_while_drawing(sheet: Page) -> None:
    captions = sheet.locator("#layers figcaption")
    content = "() => [...document.querySelectorAll('#layers canvas')].map((c) => c.toDataURL())"
    images = []
    for strokes in (THREE, EIGHT):
        draw(sheet, strokes)
        images.append(sheet.evaluate(content))
    texts = [text.replace("\xa0\u00d7\xa0", " x ") for text in captions.all_inner_texts()]
    assert texts == [
        "Input, 28 x 28",
        "1: instance normalization, 28 x 28",
        "2: convolution 5 x 5, ReLU, batch normalization, 16 maps of 28 x 28",
        "3: convolution 3 x 3, ReLU, 16 maps of 28 x 28",
        "4: sum of two layers, 16 maps of 28 x 28",
        "5: maximum of 2 x 2, batch normalization, 16 maps of 14 x 14",
        "6: convolution 3 x 3, ReLU, 16 maps of 14 x 14",
        "7: sum of two layers, batch normalization, 16 maps of 14 x 14",
        "8: convolution 3 x 3, ReLU, 32 maps of 14 x 14",
        "9: maximum of 2 x 2, batch normalization, 32 maps of 7 x 7",
        "10: convolution 3 x 3, ReLU, 32 maps of 7 x 7",
        "11: sum of two layers, batch normalization, 32 maps of 7 x 7",
        "12: convolution 3 x 3, ReLU, 64 maps of 7 x 7",
        "13: maximum of 2 x 2, batch normalization, 64 maps of 4 x 4",
        "14: convolution 3 x 3, ReLU, 64 maps of 4 x 4",
        "15: sum of two layers, batch normalization, 64 maps of 4 x 4",
        "16: average of each map, 64 maps of 1 x 1",
        "17: linear, 10 units",
    ]
    assert all(first != second for first, second in zip(*images, strict=True))


def test_a_unit_shows_its_inputs_filter_and_receptive_field(sheet: Page) -> None:
    draw(sheet, THREE)
    canvas = sheet.locator("#layers canvas").nth(2)
    canvas.focus()
    for key in ("PageDown", "ArrowDown"):
        sheet.keyboard.press(key)
    title = sheet.locator("#unit-title").inner_text()
    channel, row, column = (int(number) for number in re.findall(r"\d+", title)[1:])
    assert sheet.evaluate("inside.field()") == [
        max(0, row - 2),
        max(0, column - 2),
        min(28, row + 3),
        min(28, column + 3),
    ]
    total, shown = sheet.evaluate("""() => {
      const layer = layers.find(backend.reader.network)[2];
      const { channel, row, column } = inside.selected.unit;
      const at = channel * 784 + row * 28 + column;
      return [layer.steps[0] + 1, layer.value].map((value) => inside.current[value].data[at]);
    }""")
    formula = sheet.locator("#unit-formula").inner_text().replace(MINUS, "-")
    assert formula.startswith("Sum of 25 products of an input and a weight: ")
    convolved, relu, normalized = (float(part.split()[-1]) for part in formula.split(" \u2192 "))
    assert convolved == pytest.approx(total, abs=0.006)
    assert relu == pytest.approx(max(total, 0), abs=0.006)
    assert normalized == pytest.approx(shown, abs=0.006)
    for _ in range(25):
        sheet.click("#step-next")
    expect(sheet.locator("#step-next")).to_be_disabled()
    steps = sheet.locator("#step-text").inner_text().replace(MINUS, "-")
    assert steps.startswith("pixel 25 of 25: ")
    assert float(steps.split()[-1]) == pytest.approx(total, abs=0.006)
    expect(sheet.locator("#patch td")).to_have_count(25)
    assert channel == sheet.evaluate("inside.selected.unit.channel")


@pytest.mark.parametrize("layer", range(1, 18))
def test_the_receptive_field_is_the_part_that_influences_a_unit(sheet: Page, layer: int) -> None:
    """Exchange pixels: the unit changes only if one of them is in its receptive field.

    Exchanged pixels keep the mean and the standard deviation of the image, which the network
    normalizes. Their last bits may change.
    """
    draw(sheet, EIGHT)
    outside = sheet.evaluate(
        """(layer) => {
      const found = layers.find(backend.reader.network)[layer];
      const digit = verdict.answer.digits[0];
      const base = backend.reader.network.values(digit.pixels);
      const { shape, data } = base[found.value];
      const index = data.indexOf(arrays.max(data));
      const [top, left, bottom, right] = layers.field(
        backend.reader.network, base, found.value, layers.unitAt(shape, index));
      const within = (pixel) => {
        const [y, x] = [Math.floor(pixel / 28), pixel % 28];
        return y >= top && y < bottom && x >= left && x < right;
      };
      const pixels = [...digit.pixels.keys()];
      const tolerance = 1e-5 * Math.abs(data[index]);
      let outside = 0, inside = 0;
      for (const pixel of [index % 784, ...Array.from({ length: 157 }, (_, i) => 5 * i)]) {
        const others = pixels.filter((other) => digit.pixels[other] !== digit.pixels[pixel]);
        const partner = others.find((other) => !within(other)) ?? others[0];
        const changed = Uint8Array.from(digit.pixels);
        [changed[pixel], changed[partner]] = [changed[partner], changed[pixel]];
        const value = backend.reader.network.values(changed)[found.value].data[index];
        const part = within(pixel) || within(partner);
        if (Math.abs(value - data[index]) > tolerance) part ? inside++ : outside++;
      }
      return [outside, inside];
    }""",
        layer,
    )
    assert outside[0] == 0
    assert outside[1] > 0


def test_the_layers_rotate_in_3d(sheet: Page) -> None:
    draw(sheet, THREE)
    sheet.click("#view-solid")
    space = sheet.locator("#space")
    content = "canvas => canvas.toDataURL()"
    images = [space.evaluate(content)]
    space.focus()
    for key in ("ArrowRight", "ArrowUp"):
        sheet.keyboard.press(key)
        images.append(space.evaluate(content))
    box = space.bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    sheet.mouse.move(*middle)
    sheet.mouse.down()
    sheet.mouse.move(middle[0] + 80, middle[1] + 30)
    sheet.mouse.up()
    images.append(space.evaluate(content))
    assert len(set(images)) == 4
    sheet.keyboard.press("Home")
    assert space.evaluate(content) == images[0]
    sheet.click("#view-flat")
    expect(sheet.locator("#layers")).to_be_visible()


def test_why_names_the_stroke_that_decides(sheet: Page) -> None:
    draw(sheet, NINE)
    expect(sheet.locator("#verdict strong")).to_have_text("9")
    sheet.click("#why-toggle")
    text = sheet.locator("#why-text")
    expect(text).to_contain_text("Without the marked stroke it reads 0")
    sheet.click("#undo")  # removes that stroke
    expect(sheet.locator("#verdict strong")).to_have_text("0")
    expect(text).not_to_contain_text("reads 0 (")
    sheet.click("#why-toggle")
    expect(text).to_be_empty()


def test_why_is_true_for_the_marked_part(sheet: Page) -> None:
    draw(sheet, THREE)
    sheet.click("#why-toggle")
    text = sheet.locator("#why-text")
    expect(text).to_have_text(re.compile(r"%\)?\.$|still reads \d\.$"))
    part = sheet.evaluate("why.result.part")
    label = sheet.evaluate("verdict.answer.digits[0].label")
    pixels = decode(sheet.evaluate("btoa(String.fromCharCode(...verdict.answer.digits[0].pixels))"))
    covered = pixels.copy()
    covered[max(0, part["top"]) : part["top"] + 6, max(0, part["left"]) : part["left"] + 6] = 0
    after = load("pretrained").calibrated_probabilities(normalize(torch.from_numpy(covered)[None]))[
        0
    ][0]
    words = text.inner_text()
    if words.startswith("Without"):
        named = int(words.split("reads ")[1][0])
        assert named == int(after.argmax()) != label
    else:
        assert int(after.argmax()) == label
    stated = float(words.rstrip(" %).").split()[-1].lstrip("(<>"))
    assert stated == pytest.approx(
        100 * after[named if words.startswith("Without") else label], abs=0.2
    )
    sheet.click("#why-toggle")


def test_the_nearest_training_digits_are_the_nearest(sheet: Page) -> None:
    draw(sheet, THREE)
    expect(sheet.locator("#nearest canvas")).to_have_count(10)
    pixels = decode(sheet.evaluate("btoa(String.fromCharCode(...verdict.answer.digits[0].pixels))"))
    network = load("pretrained").network
    known = neighbors.features(network, neighbors.training_digits())
    drawn = neighbors.features(network, pixels[None].copy())[0]
    order = np.linalg.norm(known - drawn, axis=1).argsort()[:10]
    labels = " ".join(str(index // neighbors.PER_LABEL) for index in order)
    expect(sheet.locator("#neighbors-text")).to_have_text(
        f"The labels of the 10 nearest: {labels}."
    )


def test_a_stale_answer_is_marked(sheet: Page) -> None:
    draw(sheet, THREE)
    prediction = sheet.locator("#prediction")
    expect(prediction).to_have_attribute("aria-busy", "false")
    sheet.evaluate("busy = true; strokes.push([[10, 10]]); changed()")
    expect(prediction).to_have_attribute("aria-busy", "true")
    sheet.evaluate("update()")
    expect(prediction).to_have_attribute("aria-busy", "false")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_no_violation(sheet: Page, scheme: str, width: int) -> None:
    sheet.set_viewport_size({"width": width, "height": 800})
    sheet.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    draw(sheet, NINE)
    sheet.locator("#layers canvas").nth(3).focus()
    sheet.keyboard.press("ArrowDown")
    sheet.click("#step-next")
    assert sheet.evaluate("document.documentElement.scrollWidth") <= width
    for selector in ("#view-flat", "#view-solid"):
        sheet.click(selector)
        results = Axe().run(sheet)
        assert results.violations_count == 0, results.generate_report()
    sheet.click("#view-flat")
    sheet.set_viewport_size({"width": 1280, "height": 900})


def test_two_networks_are_compared(browser: Browser, home: Any) -> None:
    for address in serving(home, "pretrained"):
        page = browser.new_page()
        page.goto(address)
        expect(page.locator("#compare option")).to_have_count(4)
        draw(page, EIGHT)
        page.select_option("#compare", "version_0")
        agreement = page.locator("#agreement")
        expect(agreement).to_have_text(re.compile("Both networks read|They disagree"))
        expect(page.locator("#bars meter")).to_have_count(20)
        second = page.evaluate(
            "backend.loadModel('version_0').then(makeReader)"
            ".then((r) => r.classify(verdict.answer.digits[0].pixels).label)"
        )
        first = page.locator("#verdict strong").inner_text()
        expected = "Both" if str(second) == first else "disagree"
        expect(agreement).to_contain_text(expected)
        page.select_option("#compare", "")
        expect(page.locator("#bars meter")).to_have_count(10)
        page.close()
