"""The page without a server, in a browser, from disk."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from mnist_lightning import load
from mnist_lightning.cli.main import main
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.ink_extraction import upright
from tests.deployment.test_page import EIGHT, THREE, draw, probabilities
from tests.forms import Style, draw_form, generated
from tests.images import draw_page, draw_seven, encode

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def file(home: Path) -> Path:
    """A page with the network of the first run."""
    run = home / "lightning_logs" / "version_0"
    assert main(["export", str(run), "--format", "html", "--check_images", "10"]) == 0
    return run / "export" / "html" / "model.html"


@pytest.fixture
def sheet(browser: Browser, file: Path) -> Iterator[Page]:
    """The page, which must not log errors or contact a server."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(file.as_uri())
    yield page
    assert messages == []
    assert [url for url in requested[1:] if not url.startswith(("data:", "blob:"))] == []
    context.close()


def shown_input(page: Page) -> mnist_format.Ink:
    """Return the 28x28 image that the page shows."""
    values = page.locator("#input").evaluate(
        "canvas => [...canvas.getContext('2d').getImageData(0, 0, 28, 28).data]"
    )
    return np.array(values, np.uint8).reshape(28, 28, 4)[..., 0]


NO_THREAD = "delete window.Worker"
FAILING_THREAD = """
  const Thread = Worker;
  window.Worker = function () {
    return new Thread(URL.createObjectURL(new Blob(["throw new Error()"])));
  };
"""


@pytest.mark.parametrize("script", [NO_THREAD, FAILING_THREAD])
def test_a_browser_without_threads_reads_in_the_page(
    browser: Browser, file: Path, script: str
) -> None:
    page = browser.new_page()
    page.add_init_script(script)
    page.goto(file.as_uri())
    draw(page, THREE)
    expect(page.locator("#verdict strong")).to_have_text(re.compile("^[0-9]$"))
    page.click("#clear")
    draw(page, THREE)
    expect(page.locator("#verdict strong")).to_have_text(re.compile("^[0-9]$"))
    page.close()


def test_a_drawing_is_read_without_a_server(sheet: Page, file: Path) -> None:
    expect(sheet.locator("#verdict")).to_have_text("Nothing drawn yet.")
    expect(sheet.locator("footer")).to_contain_text("trained on digits")
    draw(sheet, THREE)
    expect(sheet.locator("#verdict strong")).to_have_text(re.compile("^[0-9]$"))
    actual = probabilities(sheet)
    assert sum(actual) == pytest.approx(100, abs=0.6)
    # The prediction of Python for the input that the page shows.
    recognizer = load(file.parents[2])
    (expected,) = recognizer.read(Image.fromarray(shown_input(sheet)))
    assert actual == pytest.approx((100 * expected.probabilities).tolist(), abs=0.5)
    sheet.click("#clear")
    expect(sheet.locator("#verdict")).to_have_text("Nothing drawn yet.")
    draw(sheet, EIGHT)
    expect(sheet.locator("#verdict strong")).to_have_text(re.compile("^[0-9]$"))


def test_photos_are_processed_as_in_python(sheet: Page, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated, as a camera in portrait position writes it
    draw_seven().save(tmp_path / "seven.png", exif=exif)
    sheet.set_input_files("#file", tmp_path / "seven.png")
    expect(sheet.locator("#verdict strong")).to_have_text(re.compile("^[0-9]$"))
    expected = mnist_format.from_image(upright(mnist_format.read(tmp_path / "seven.png")))
    assert np.abs(shown_input(sheet).astype(int) - expected).max() <= 2
    draw_page([(0, 20), (250, 0)]).save(tmp_path / "page.jpg")
    sheet.set_input_files("#file", tmp_path / "page.jpg")
    expect(sheet.locator("#digits button")).to_have_count(2)
    sheet.select_option("#multiple", "false")
    expect(sheet.locator("#digits button")).to_have_count(0)


def test_a_form_is_shown_as_a_table(sheet: Page, tmp_path: Path) -> None:
    images, _ = generated(6)
    images[4] = 0
    draw_form(images, 2, 3, Style(degrees=2))[0].save(tmp_path / "form.png")
    sheet.set_input_files("#file", tmp_path / "form.png")
    expect(sheet.locator("#verdict")).to_contain_text("5 digits in a form; ")
    buttons = sheet.locator("#digits.form button")
    names = buttons.evaluate_all("all => all.map((button) => button.ariaLabel.split(':')[0])")
    assert names == [f"row {r}, column {c}" for r, c in ((1, 1), (1, 2), (1, 3), (2, 1), (2, 3))]
    (top, left, last) = (buttons.nth(place).bounding_box() for place in (0, 3, 4))
    assert top and left and last
    assert top["x"] == left["x"] < last["x"] - 2 * top["width"]
    assert top["y"] < left["y"] == last["y"]
    assert shown_input(sheet).shape == (28, 28)
    images[1:] = 0
    draw_form(images, 2, 3, Style())[0].save(tmp_path / "form.png")
    sheet.set_input_files("#file", tmp_path / "form.png")
    expect(sheet.locator("#verdict")).to_contain_text("1 digit in a form; ")
    expect(buttons).to_have_count(1)


def test_errors_are_shown(sheet: Page, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("seven")
    Image.new("L", (90, 60), 250).save(tmp_path / "blank.png")
    for name, message in (
        ("text", "This browser cannot open text.png: it is not an image, or is damaged."),
        ("blank", "no digit in the image: its contrast is too low"),
    ):
        sheet.set_input_files("#file", tmp_path / f"{name}.png")
        expect(sheet.locator("#verdict")).to_have_text(message)
        expect(sheet.locator("#verdict")).to_have_class("problem")


def test_the_card_s_frame_shows_it_on_another_page(browser: Browser, file: Path) -> None:
    card = (file.parent / "MODEL_CARD.md").read_text()
    (code,) = re.findall(r"```html\n(.*?)```", card, flags=re.DOTALL)
    (file.parent / "mine.html").write_text(f"<!doctype html><h1>Mine</h1>{code}")
    page = browser.new_page()
    page.goto((file.parent / "mine.html").as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("#file").set_input_files(
        {"name": "a", "mimeType": "", "buffer": encode(draw_seven())}
    )
    expect(frame.locator("#verdict strong")).to_have_text(re.compile("^[0-9]$"))
    page.close()
