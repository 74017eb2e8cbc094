"""The page in a browser."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from mnist_lightning.cli.main import main
from mnist_lightning.evaluation import glossary
from tests.deployment.conftest import serving
from tests.images import draw_page, draw_seven

pytestmark = pytest.mark.slow

Stroke = list[tuple[float, float]]


def arc(x: float, y: float, width: float, height: float, start: float, end: float) -> Stroke:
    """Return points on an ellipse between two angles, as shares of the sheet."""
    angles = [math.radians(start + (end - start) * step / 20) for step in range(21)]
    return [(x + width * math.cos(angle), y + height * math.sin(angle)) for angle in angles]


THREE = [arc(0.5, 0.33, 0.17, 0.17, -150, 90) + arc(0.5, 0.66, 0.19, 0.17, -90, 150)]
EIGHT = [arc(0.5, 0.33, 0.14, 0.15, 90, 450) + arc(0.5, 0.65, 0.17, 0.17, -90, 270)]


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    yield from serving(home, "0", "--collect", "kept")


@pytest.fixture
def sheet(browser: Browser, address: str) -> Iterator[Page]:
    """The page, which must not log errors or contact other servers."""
    context = browser.new_context()
    page = context.new_page()
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(address)
    expect(page.locator("#run option")).to_have_count(3)
    yield page
    # The browser logs each response with an error; the page shows it.
    assert [text for text in messages if "responded with a status of 4" not in text] == []
    assert [url for url in requested if not url.startswith((address, "data:", "blob:"))] == []
    context.close()


def draw(page: Page, strokes: list[Stroke]) -> None:
    box = page.locator("#paper").bounding_box()
    assert box is not None
    for stroke in strokes:
        for number, (x, y) in enumerate(stroke):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            if number == 0:
                page.mouse.down()
        page.mouse.up()
    page.wait_for_function("() => !busy")  # the result of the complete drawing is shown


def probabilities(page: Page) -> list[float]:
    rows = page.locator("#bars tr")
    expect(rows).to_have_count(10)
    return [float(text.split()[-2]) for text in rows.all_inner_texts()]


def test_a_drawing_is_read_while_it_is_drawn(sheet: Page) -> None:
    expect(sheet.locator("#verdict")).to_have_text("Nothing drawn yet.")
    draw(sheet, THREE)
    expect(sheet.locator("#verdict strong")).to_have_text(re.compile("[0-9]"))
    actual = probabilities(sheet)
    assert sum(actual) == pytest.approx(100, abs=0.6)
    label = int(sheet.locator("#verdict strong").inner_text())
    assert actual[label] == max(actual)
    expect(sheet.locator("#bars tr.first th")).to_have_text(str(label))
    ink = sheet.locator("#input").evaluate(
        "canvas => Math.max(...canvas.getContext('2d').getImageData(0, 0, 28, 28).data"
        ".filter((_, i) => i % 4 === 0))"
    )
    assert ink == 255
    sheet.click("#undo")
    expect(sheet.locator("#verdict")).to_have_text("Nothing drawn yet.")
    expect(sheet.locator("#details")).to_be_hidden()


def test_a_photo_is_read_and_its_digits_boxed(sheet: Page, tmp_path: Path) -> None:
    draw_page([(0, 20), (250, 0)]).save(tmp_path / "page.jpg")
    sheet.set_input_files("#file", tmp_path / "page.jpg")
    expect(sheet.locator("#digits button")).to_have_count(2)
    green = "() => document.getElementById('paper').getContext('2d')" + (
        ".getImageData(0, 0, 420, 420).data.reduce((n, v, i, d) => "
        "n + (i % 4 == 0 && v == 42 && d[i + 1] == 111 && d[i + 2] == 78), 0)"
    )
    boxed = sheet.evaluate(green)
    assert boxed > 100
    sheet.locator("#digits button").nth(1).click()
    expect(sheet.locator("#digits button").nth(1)).to_have_attribute("aria-pressed", "true")
    sheet.select_option("#multiple", "false")
    expect(sheet.locator("#digits button")).to_have_count(0)
    sheet.select_option("#run", "version_1")
    expect(sheet.locator("#verdict strong")).to_have_text(re.compile("^[0-9]$"))


def test_errors_are_shown_on_the_page(sheet: Page, tmp_path: Path) -> None:
    (tmp_path / "vast.png").write_bytes(bytes(25_000_001))
    (tmp_path / "text.png").write_text("seven")
    for name, message in (
        ("vast", "too large: the limit is 25 megabytes"),
        ("text", "not an image"),
    ):
        sheet.set_input_files("#file", tmp_path / f"{name}.png")
        expect(sheet.locator("#verdict")).to_contain_text(message)
        expect(sheet.locator("#verdict")).to_have_class("problem")


def test_a_correction_is_saved_by_its_true_label(sheet: Page, home: Path, tmp_path: Path) -> None:
    draw_seven().save(tmp_path / "seven.png")
    sheet.set_input_files("#file", tmp_path / "seven.png")
    sheet.locator("#correction button").nth(7).click()
    expect(sheet.locator("#kept")).to_have_text("Saved as a 7, for training.")
    assert len(list((home / "kept" / "7").iterdir())) == 1


def test_the_note_on_a_correction_stays_when_the_layers_are_loaded(
    browser: Browser, address: str
) -> None:
    page = browser.new_page()
    held: list[Route] = []
    page.route("**/api/network?*", lambda route: held.append(route))
    page.goto(address)
    draw(page, THREE)  # the server reads it
    page.locator("#correction button").nth(3).click()
    expect(page.locator("#kept")).to_have_text("Saved as a 3, for training.")
    (route,) = held
    route.continue_()
    expect(page.locator("#layers figcaption").first).to_be_attached()
    page.wait_for_function("() => !busy")  # the drawing was read again
    expect(page.locator("#kept")).to_have_text("Saved as a 3, for training.")
    page.click("#undo")
    expect(page.locator("#kept")).to_have_text("")
    page.close()


def test_the_keyboard_draws(sheet: Page) -> None:
    sheet.locator("#paper").focus()
    for key in ("Space", *["ArrowDown"] * 12):
        sheet.keyboard.press(key)
    expect(sheet.locator("#verdict strong")).to_have_text(re.compile("[0-9]"))
    sheet.keyboard.press("Escape")
    sheet.keyboard.press("ArrowDown")  # Escape also lifted the pen
    expect(sheet.locator("#verdict")).to_have_text("Nothing drawn yet.")
    for key in ("Space", "ArrowLeft", "Space", "Space", "ArrowUp"):
        sheet.keyboard.press(key)
    sheet.keyboard.press("Control+z")
    expect(sheet.locator("#undo")).to_be_enabled()
    sheet.keyboard.press("Escape")
    expect(sheet.locator("#verdict")).to_have_text("Nothing drawn yet.")


def test_it_fits_a_phone_in_light_and_dark(sheet: Page) -> None:
    sheet.set_viewport_size({"width": 360, "height": 664})
    grounds = set()
    for scheme in ("light", "dark"):
        sheet.emulate_media(color_scheme=scheme)
        draw(sheet, THREE)
        expect(sheet.locator("#details")).to_be_visible()
        assert sheet.evaluate("document.documentElement.scrollWidth") <= 360
        answer = sheet.locator("#verdict").bounding_box()
        assert answer is not None
        assert answer["y"] + answer["height"] <= 664  # visible beside the drawing
        grounds.add(sheet.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


def test_its_terms_are_those_of_the_glossary(sheet: Page) -> None:
    terms = sheet.locator("#terms")
    expect(terms.locator("dl")).to_be_hidden()
    terms.locator("summary").click()
    names, shown = (terms.locator(tag).all_inner_texts() for tag in ("dt", "dd"))
    assert {"receptive field", "logits"} <= set(names)
    for name, definition in zip(names, shown, strict=True):
        assert definition == glossary.find(name.split(", ")[0]).definition.replace("`", "")
    sheet.set_viewport_size({"width": 360, "height": 664})
    assert sheet.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_api_page_lists_all_requests(sheet: Page, address: str) -> None:
    sheet.goto(f"{address}/docs")
    headings = sheet.locator("h2")
    expect(headings).to_have_count(7)
    assert "POST /api/predict" in headings.all_inner_texts()


@pytest.mark.mnist
def test_a_drawn_three_and_an_eight_are_recognized(
    browser: Browser, mnist_dir: Path, tmp_path: Path
) -> None:
    config = Path(__file__).parent.parent.parent / "configs" / "speedrun.yaml"
    where = ["--data.data_dir", str(mnist_dir), "--trainer.default_root_dir", str(tmp_path)]
    assert main(["fit", "--config", str(config), "--dashboards", "none", *where]) == 0
    for address in serving(tmp_path):
        page = browser.new_page()
        page.goto(address)
        for strokes, label in ((THREE, "3"), (EIGHT, "8")):
            draw(page, strokes)
            expect(page.locator("#verdict strong")).to_have_text(label)
            page.click("#clear")
        page.close()


def test_no_answer_of_the_former_run_is_shown_as_that_of_the_selected_one(sheet: Page) -> None:
    runs = sheet.locator("#run option").evaluate_all("all => all.map((each) => each.value)")
    other = next(name for name in runs if name != sheet.locator("#run").input_value())
    draw(sheet, THREE)
    expect(sheet.locator("#verdict strong")).to_have_text(re.compile("[0-9?]"))
    requested: list[str] = []
    sheet.on("request", lambda request: requested.append(request.url))
    sheet.route("**/api/network?*", lambda route: None)  # the network is not loaded meanwhile
    sheet.select_option("#run", other)
    expect(sheet.locator("#prediction")).to_have_attribute("aria-busy", "false")
    assert any("api/predict" in url and f"run={other}" in url for url in requested)
    sheet.unroute_all()
