"""Teaching in a browser: draw, correct, learn, and see the result."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.deployment.conftest import serving
from tests.deployment.test_page import EIGHT, THREE, draw

pytestmark = pytest.mark.slow

LEARN_MILLISECONDS = 900_000  # also on a machine that other processes use


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    yield from serving(home, "pretrained", "--teach", "--data.data_dir", "nothing")


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, which must not log errors."""
    context = browser.new_context()
    page = context.new_page()
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(address)
    expect(page.locator("#run option").nth(2)).to_be_attached()
    yield page
    assert [text for text in messages if "responded with a status of 4" not in text] == []
    context.close()


def correct(page: Page, label: int) -> None:
    page.locator("#correction button").nth(label).click()
    expect(page.locator("#kept")).to_have_text(f"Saved as a {label}, for training.")


def test_a_digit_is_drawn_corrected_and_learned(page: Page) -> None:
    learn = page.get_by_role("button", name="Learn")
    expect(learn).to_be_disabled()
    draw(page, THREE)
    correct(page, 5)
    expect(page.locator("#corrected-title")).to_have_text("1 corrected digit")
    correct(page, 8)  # the last label counts
    expect(page.locator("#corrected li")).to_have_count(1)
    expect(page.locator("#corrected li")).to_contain_text("8")
    learn.focus()
    page.keyboard.press("Enter")
    status = page.locator("#learned")
    expect(status).to_have_text(re.compile("Starting|Learning"))
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    expect(page.get_by_role("progressbar")).to_be_visible()
    page.reload()  # the progress is shown again
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(status).to_have_text(re.compile("of 14 epochs completed"), timeout=LEARN_MILLISECONDS)
    use_new = page.get_by_role("button", name="Use the new network")
    expect(use_new).to_be_visible(timeout=LEARN_MILLISECONDS)
    expect(status).to_have_text(re.compile(r"^Your digits: 0 of 1 correct before, 1 after\. 200 "))
    expect(page.get_by_role("progressbar")).to_be_hidden()
    cells = page.locator("#own tbody td").all_inner_texts()
    assert cells[1] == "8"
    assert cells[2].endswith("✗")
    assert cells[3] == "8 ✓"
    expect(page.locator("#learn-notes")).to_contain_text("only synthetic digits are mixed in")
    page.locator("#paper").scroll_into_view_if_needed()
    draw(page, THREE)
    expect(page.locator("#verdict strong")).not_to_have_text("8")
    use_new.click()
    expect(page.locator("#run")).to_have_value("version_2")
    expect(page.locator("#verdict strong")).to_have_text("8")
    expect(use_new).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#agreement")).to_have_text(re.compile("^They disagree: version_2 reads 8"))
    page.get_by_role("button", name="Use the earlier network").click()
    expect(page.locator("#run")).to_have_value("pretrained")
    expect(page.locator("#verdict strong")).not_to_have_text("8")
    expect(use_new).to_have_attribute("aria-pressed", "false")


def test_learning_is_cancelled(page: Page) -> None:
    draw(page, EIGHT)
    correct(page, 8)
    page.get_by_role("button", name="Learn").click()
    cancel = page.get_by_role("button", name="Cancel")
    cancel.click()
    expect(page.locator("#learned")).to_have_text(re.compile("^Cancelled"))
    expect(cancel).to_be_hidden()
    expect(page.get_by_role("button", name="Learn")).to_be_enabled()


def test_a_second_page_follows_and_cancels_also_after_a_failed_request(
    page: Page, address: str
) -> None:
    other = page.context.new_page()
    other.goto(address)
    draw(page, EIGHT)
    correct(page, 8)
    page.get_by_role("button", name="Learn").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    other.reload()
    failures = iter([True, True])
    other.route(
        "**/api/learn",
        lambda route: route.abort() if next(failures, False) else route.fallback(),
    )
    expect(other.locator("#learned")).to_contain_text("Start")
    other.get_by_role("button", name="Cancel").click()
    for each in (page, other):
        expect(each.locator("#learned")).to_have_text(re.compile("^Cancelled"))
        expect(each.get_by_role("button", name="Cancel")).to_be_hidden()
    other.close()


def test_a_saved_label_is_shown_for_its_drawing_only(page: Page) -> None:
    draw(page, EIGHT)
    correct(page, 8)
    page.click("#clear")
    expect(page.locator("#kept")).to_have_text("")
    draw(page, THREE)
    expect(page.locator("#verdict strong")).to_have_text(re.compile("."))
    expect(page.locator("#kept")).to_have_text("")


def test_a_corrected_digit_is_removed_with_the_keyboard(page: Page) -> None:
    items = page.locator("#corrected li")
    for label, strokes in ((8, EIGHT), (3, THREE)):
        draw(page, strokes)
        correct(page, label)
    expect(items.first).to_contain_text("3")
    count = items.count()
    page.get_by_role("button", name="Remove drawing 1, label 3").focus()
    page.keyboard.press("Enter")
    expect(items).to_have_count(count - 1)
    expect(items.first.get_by_role("button")).to_be_focused()


def test_the_panel_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 664})
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        expect(page.locator("#teach")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
