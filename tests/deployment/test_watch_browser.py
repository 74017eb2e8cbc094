"""The page that shows a training, in a browser."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from filelock import FileLock
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from mnist_lightning.cli.main import main
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.runs.snapshots import snapshot_path
from tests import processes
from tests.cli.test_watch_page import WATCH, WatchedFit
from tests.conftest import DIGITS
from tests.deployment.conftest import serving
from tests.processes import at_step

pytestmark = pytest.mark.slow
PICTURE = "document.getElementById('filters').toDataURL()"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page, which must not log errors or contact other servers."""
    context = browser.new_context()
    page = context.new_page()
    messages: list[str] = []
    page.on("console", lambda message: messages.append(_text(message)))
    page.on("pageerror", lambda error: messages.append(str(error)))
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    yield page
    # The browser logs each request that fails; the page shows it.
    assert [text for text in messages if "Failed to load resource" not in text] == []
    assert [url for url in requested if not url.startswith(("http://127.0.0.1", "data:"))] == []
    context.close()


def _text(message: ConsoleMessage) -> str:
    return message.text


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run of four epochs, and a run without snapshots."""
    folder = tmp_path_factory.mktemp("trained")
    place = ["--trainer.default_root_dir", str(folder)]
    assert main(["fit", *DIGITS, "--trainer.max_epochs", "4", *place]) == 0
    plain = ["--trainer.max_epochs", "1", "--dashboards", "none"]
    assert main(["fit", *DIGITS, *plain, *place]) == 0
    return folder


@pytest.fixture(scope="module")
def address(trained: Path) -> Iterator[str]:
    yield from serving(trained, "0")


def test_the_page_changes_while_a_run_is_trained(page: Page, tmp_path: Path) -> None:
    # Batches of 4: an epoch takes a second or more.
    options = ["--data.batch_size", "4", "--trainer.max_epochs", "4"]
    fit = WatchedFit(tmp_path, "fit", *WATCH, *options)
    page.goto(f"{fit.address}/watch")
    expect(page.locator("#state")).to_have_text(re.compile("Starting|Running"))
    expect(page.locator("#network")).to_be_visible(timeout=30_000)
    before = page.evaluate(PICTURE)
    page.wait_for_function("() => known.lastEpoch >= 1")
    expect(page.locator("#position")).to_have_text(re.compile(r"^epoch \d of 4, \d+ steps logged"))
    expect(page.locator("#summary")).to_contain_text(re.compile(r"Epoch \d: training loss"))
    assert page.evaluate(PICTURE) != before
    expect(page.locator("#state")).to_have_text("Finished")
    assert processes.wait_for_exit(fit.process) == 0
    fit.assert_ended()
    assert page.evaluate("known.epochs.size") == 4
    expect(page.locator("#moment")).to_have_text("after epoch 4")
    expect(page.locator("#position")).to_have_text(
        re.compile(r"^after epoch 4 of 4; test accuracy \d+\.\d\d %\.$")
    )
    # The server has ended: the page still shows every epoch, and sends no requests.
    page.locator("#epoch").focus()
    page.keyboard.press("Home")
    expect(page.locator("#moment")).to_have_text("before the training")
    assert page.evaluate(PICTURE) == before
    time.sleep(2)
    expect(page.locator("#problem")).to_be_hidden()


def test_the_values_are_those_of_the_run(page: Page, address: str, trained: Path) -> None:
    page.goto(f"{address}/watch?run=version_0")
    expect(page.locator("#state")).to_have_text("Finished")
    rows = (trained / "lightning_logs/version_0/metrics.csv").read_text().splitlines()
    columns = rows[0].split(",")
    table = [dict(zip(columns, row.split(","), strict=True)) for row in rows[1:]]
    (last,) = (row for row in table if row["epoch"] == "4")
    page.locator("summary").click()
    shown = [
        "4",
        f"{float(last['train/loss']):.4f}",
        f"{100 * float(last['train/accuracy']):.2f} %",
        f"{float(last['val/loss']):.4f}",
        f"{100 * float(last['val/accuracy']):.2f} %",
    ]
    assert page.locator("#last tbody tr").first.locator("th, td").all_inner_texts() == shown
    label = page.locator("#loss").get_attribute("aria-label")
    assert label == f"Loss after epoch 4: training {shown[1]}, validation {shown[3]}"
    assert page.locator("#loss circle.train").count() == 4
    assert page.locator("#loss rect.val").count() == 4
    cells = page.locator("#confusion td").all_inner_texts()[1:]
    assert sum(map(int, cells)) == 200  # the validation images
    expect(page.locator("#confusion-note")).to_contain_text("200 validation images")
    texts = page.locator("#bars td:last-child").all_inner_texts()
    assert len(texts) == 10
    expect(page.locator("#digit-note")).to_contain_text(re.compile(r"label is \d\. Prediction: \d"))


def test_the_slider_works_with_the_keyboard(page: Page, address: str) -> None:
    page.goto(f"{address}/watch?run=version_0")
    expect(page.locator("#moment")).to_have_text("after epoch 4")
    expect(page.locator("#live")).to_have_attribute("aria-pressed", "true")
    slider = page.locator("#epoch")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#moment")).to_have_text("after epoch 3")
    expect(slider).to_have_attribute("aria-valuetext", "after epoch 3")
    expect(page.locator("#live")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("Home")
    expect(page.locator("#moment")).to_have_text("before the training")
    expect(page.locator("#confusion-note")).to_contain_text("There is none")
    page.locator("#live").press("Enter")
    expect(page.locator("#moment")).to_have_text("after epoch 4")


def test_a_run_without_snapshots_has_curves(page: Page, address: str) -> None:
    page.goto(f"{address}/watch?run=version_1")
    expect(page.locator("#state")).to_have_text("Finished")
    assert page.locator("#loss circle.train").count() == 1
    expect(page.locator("#network")).to_be_hidden()
    expect(page.locator("#no-network")).to_be_visible()
    page.goto(f"{address}/watch?run=version_9")
    expect(page.locator("#problem")).to_contain_text("run not found")


def test_the_drawing_page_links_to_runs_with_snapshots(page: Page, address: str) -> None:
    page.goto(address)
    link = page.locator("#watch")
    expect(link).to_be_visible()
    page.select_option("#run", "version_1")
    expect(link).to_be_hidden()
    page.select_option("#run", "version_0")
    link.click()
    expect(page.locator("#run")).to_contain_text("version_0 · ClassicCNN · digits")
    page.locator("#draw").click()
    expect(page.locator("#paper")).to_be_visible()


def test_the_page_shows_that_the_server_has_gone(page: Page, trained: Path) -> None:
    run = Run(trained / "lightning_logs" / "version_0")
    summary = (run.folder / "summary.json").read_text()
    (run.folder / "summary.json").write_text(summary.replace('"finished"', '"running"'))
    try:
        with FileLock(run.lock_file):  # as if it were trained
            servers = serving(trained, "0")
            page.goto(f"{next(servers)}/watch")
            expect(page.locator("#state")).to_have_text("Running")
            servers.close()  # type: ignore[attr-defined] # a generator
            expect(page.locator("#state")).to_have_text("Not connected")
            expect(page.locator("#problem")).to_contain_text("The server has not responded since")
            assert page.evaluate("document.body.classList.contains('stale')")
    finally:
        (run.folder / "summary.json").write_text(summary)


def test_damaged_and_hostile_snapshots_are_reported(page: Page, trained: Path) -> None:
    folder = trained / "lightning_logs" / "version_5"
    (folder / "snapshots").mkdir(parents=True)
    source = Run(trained / "lightning_logs" / "version_0")
    network = '{"class_path": "a.<img src=x onerror=alert(1)>", "init_args": {}}'
    summary = f'{{"state": "finished", "dataset": "<b>x</b>", "network": {network}}}'
    (folder / "summary.json").write_text(summary)
    for epoch in (1, 2):
        path = snapshot_path(folder / "snapshots", epoch)
        path.write_bytes(snapshot_path(source.snapshots, epoch).read_bytes())
    snapshot_path(folder / "snapshots", 2).write_text("{")
    for address in serving(trained, "pretrained"):
        page.goto(f"{address}/watch?run=version_5")
        expect(page.locator("#damaged")).to_have_text("Damaged snapshots, not shown: 2")
        expect(page.locator("#moment")).to_have_text("after epoch 1")
        expect(page.locator("#run")).to_contain_text("<b>x</b>")


def test_it_fits_a_phone_in_light_and_dark(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 360, "height": 664})
    page.goto(f"{address}/watch?run=version_0")
    expect(page.locator("#network")).to_be_visible()
    grounds = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


def test_a_run_in_its_first_epoch_can_be_served(page: Page, tmp_path: Path) -> None:
    fit = ["fit", *DIGITS, "--trainer.max_epochs", "3"]
    training = processes.start(fit, tmp_path, at_step(5, signal.SIGSTOP))
    run = Run(tmp_path / "lightning_logs" / "version_0")
    try:
        while not snapshot_path(run.snapshots, 0).exists():
            assert training.is_alive()
            time.sleep(0.05)
        for address in serving(tmp_path, "0"):
            page.goto(address)
            expect(page.locator("#verdict")).to_contain_text("version_0 has no checkpoint yet")
            page.locator("#watch").click()
            expect(page.locator("#state")).to_have_text("Running")
            expect(page.locator("#moment")).to_have_text("before the training")
            os.kill(training.pid or 0, signal.SIGCONT)
            expect(page.locator("#state")).to_have_text("Finished")
            page.goto(address)
            box = page.locator("#paper").bounding_box()
            assert box is not None
            page.mouse.move(box["x"] + 100, box["y"] + 60)
            page.mouse.down()
            page.mouse.move(box["x"] + 100, box["y"] + 250, steps=9)
            page.mouse.up()
            expect(page.locator("#verdict strong")).to_have_text(re.compile("[0-9?]"))
    finally:
        training.kill()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1000])
def test_axe_finds_no_violation(page: Page, address: str, scheme: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(f"{address}/watch?run=version_0")
    expect(page.locator("#network")).to_be_visible()
    page.locator("summary").click()
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
