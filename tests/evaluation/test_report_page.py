"""The page that the command report writes, in a browser."""

import json
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize

from mnist_lightning.evaluation import glossary
from mnist_lightning.runs.run_directory import Run
from tests.conftest import Command
from tests.evaluation.test_report import FIGURES

ColorScheme = Literal["light", "dark"]


def test_the_page_is_self_contained_and_without_errors(
    trained_cli: Command, run_0: Run, browser: Browser
) -> None:
    assert trained_cli("report").status == 0
    context = browser.new_context(offline=True)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    address = (run_0.folder / "report" / "report.html").as_uri()
    page.goto(address)
    assert complaints == []
    assert [url for url in requested if not url.startswith("data:")] == [address]
    widths = page.eval_on_selector_all("img", "all => all.map(image => image.naturalWidth)")
    assert len(widths) == len(FIGURES - {"curves"})
    assert min(widths) > 500
    text = page.inner_text("body")
    summary = run_0.summary()
    assert f"{100 * summary['test/accuracy']:.2f} %" in text
    assert "class_path: mnist_lightning.networks.classic_cnn.ClassicCNN" in text
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": 360, "height": 700})  # of a phone
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, f"{wide} pixels wide"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(22, 24, 28)"
    context.close()


def read_sections(page: Page) -> dict[str, str]:
    """Return the text of the first element below each heading of a report."""
    script = "all => all.map(one => [one.innerText, one.nextElementSibling.innerText])"
    return dict(page.eval_on_selector_all("h2", script))


def test_each_section_begins_with_its_sentence(
    trained_cli: Command, run_0: Run, browser: Browser
) -> None:
    assert trained_cli("report").status == 0
    judged = json.loads((run_0.folder / "report" / "report.json").read_text())["findings"]
    page = browser.new_page()
    page.goto((run_0.folder / "report" / "report.html").as_uri())
    sections = read_sections(page)
    assert sections.popitem()[0] == "Terms"
    expected = {
        "Mistakes": "confusions",
        "Training": "training",
        "Calibration": "calibration",
        "Robustness": "robustness",
        "Images without digits": "non_digits",
        "Attribution": "attributions",
        "The hardest correct predictions": "closest_calls",
        "The first test images": "examples",
        "Reproduction": "reproduction",
    }
    assert list(sections) == list(expected)
    for heading, name in expected.items():
        assert sections[heading] == judged[name]["text"]
    shown = page.eval_on_selector_all(".finding", "all => all.map(one => one.innerText)")
    assert sorted(shown) == sorted(finding["text"] for finding in judged.values())
    page.close()


def test_every_linked_term_is_defined_on_the_page(
    trained_cli: Command, run_0: Run, browser: Browser
) -> None:
    assert trained_cli("report").status == 0
    page = browser.new_page()
    page.goto((run_0.folder / "report" / "report.html").as_uri())
    script = (
        "all => all.map(link => [link.innerText, document.querySelector(link.hash)?.innerText])"
    )
    links = page.eval_on_selector_all("a.term", script)
    assert {"calibration error", "training loss", "corruption"} <= {text for text, _ in links}
    for text, names in links:
        known = [name.lower() for name in names.split(", ")]
        assert text.lower() in [*known, *(f"{name}s" for name in known)]
    shown = page.eval_on_selector_all(
        "dl", "all => all.flatMap(list => [...list.children].map(one => one.innerText))"
    )
    for names, definition in zip(shown[::2], shown[1::2], strict=True):
        assert definition == glossary.find(names.split(", ")[0]).definition.replace("`", "")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits_a_phone(
    trained_cli: Command, run_0: Run, browser: Browser, scheme: ColorScheme
) -> None:
    assert trained_cli("report").status == 0
    size: ViewportSize = {"width": 360, "height": 740}
    page = browser.new_page(viewport=size, color_scheme=scheme)
    page.goto((run_0.folder / "report" / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    # What is wider than the page scrolls inside a region of its own.
    wider = page.evaluate(
        """[...document.querySelectorAll('main *')].filter(one => !one.closest('.wide, pre')
           && one.getBoundingClientRect().right > 360).length"""
    )
    assert wider == 0
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    page.close()


def test_the_printed_page_is_light_and_nothing_is_cut(
    trained_cli: Command, run_0: Run, browser: Browser
) -> None:
    assert trained_cli("report").status == 0
    a4: ViewportSize = {"width": 680, "height": 1000}  # between margins of 15 mm
    page = browser.new_page(viewport=a4, color_scheme="dark")
    page.goto((run_0.folder / "report" / "report.html").as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('img')).filter") == "none"
    cut = page.evaluate(
        """[...document.querySelectorAll('main *')].filter(one => {
             const box = one.getBoundingClientRect();
             return box.right > 680 || (one.tagName == 'IMG' && box.height > 1000);
           }).length"""
    )
    assert cut == 0
    page.close()
