"""The page without a server, in a real browser, from the disk."""

import base64
import io
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
from tests.preprocessing.test_components import page as page_of_sevens
from tests.preprocessing.test_ink_extraction import drawn


@pytest.fixture(scope="module")
def file(home: Path) -> Path:
    """A page that asks the first run."""
    run = home / "lightning_logs" / "version_0"
    assert main(["export", str(run), "--format", "html", "--check_images", "10"]) == 0
    return run / "export" / "html" / "model.html"


@pytest.fixture
def sheet(browser: Browser, file: Path) -> Iterator[Page]:
    """The page, which must not complain nor ask anybody."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    yield page
    assert complaints == []
    assert [url for url in asked[1:] if not url.startswith(("data:", "blob:"))] == []
    context.close()


def seen(page: Page) -> mnist_format.Ink:
    """The 28x28 that the page shows."""
    address = page.locator("#input").get_attribute("src")
    assert address is not None
    content = base64.b64decode(address.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def test_what_is_drawn_is_read_from_the_disk(sheet: Page, file: Path) -> None:
    expect(sheet.locator("#verdict")).to_have_text("Nothing is drawn yet.")
    expect(sheet.locator("footer")).to_contain_text("trained on digits")
    draw(sheet, THREE)
    expect(sheet.locator("#verdict strong")).to_have_text(re.compile("^[0-9]$"))
    found = probabilities(sheet)
    assert sum(found) == pytest.approx(100, abs=0.6)
    # What Python's network makes of what the page's saw.
    recognizer = load(file.parents[2])
    (wanted,) = recognizer.read(Image.fromarray(seen(sheet)))
    assert found == pytest.approx((100 * wanted.probabilities).tolist(), abs=0.5)
    sheet.click("#clear")
    expect(sheet.locator("#verdict")).to_have_text("Nothing is drawn yet.")
    draw(sheet, EIGHT)
    expect(sheet.locator("#verdict strong")).to_have_text(re.compile("^[0-9]$"))


def test_photos_are_read_boxed_and_seen_as_by_python(sheet: Page, tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # as a camera held upright notes it
    drawn().save(tmp_path / "seven.png", exif=turned)
    sheet.set_input_files("#file", tmp_path / "seven.png")
    expect(sheet.locator("#verdict strong")).to_have_text(re.compile("^[0-9]$"))
    wanted = mnist_format.from_picture(upright(mnist_format.read(tmp_path / "seven.png")))
    assert np.abs(seen(sheet).astype(int) - wanted).max() <= 2
    page_of_sevens([(0, 20), (250, 0)]).save(tmp_path / "page.jpg")
    sheet.set_input_files("#file", tmp_path / "page.jpg")
    expect(sheet.locator("#digits button")).to_have_count(2)
    sheet.select_option("#multiple", "false")
    expect(sheet.locator("#digits button")).to_have_count(0)


def test_what_cannot_be_read_is_said(sheet: Page, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("seven")
    Image.new("L", (90, 60), 250).save(tmp_path / "blank.png")
    for name, said in (
        ("text", "This browser cannot show text.png: it is no picture, or damaged."),
        ("blank", "no digit in the picture: nothing stands out from its paper"),
    ):
        sheet.set_input_files("#file", tmp_path / f"{name}.png")
        expect(sheet.locator("#verdict")).to_have_text(said)
        expect(sheet.locator("#verdict")).to_have_class("problem")


def test_the_card_s_frame_shows_it_on_another_page(browser: Browser, file: Path) -> None:
    card = (file.parent / "MODEL_CARD.md").read_text()
    (code,) = re.findall(r"```html\n(.*?)```", card, flags=re.DOTALL)
    (file.parent / "mine.html").write_text(f"<!doctype html><h1>Mine</h1>{code}")
    page = browser.new_page()
    page.goto((file.parent / "mine.html").as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("#file").set_input_files({"name": "a", "mimeType": "", "buffer": png(drawn())})
    expect(frame.locator("#verdict strong")).to_have_text(re.compile("^[0-9]$"))
    page.close()


def png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "png")
    return content.getvalue()
