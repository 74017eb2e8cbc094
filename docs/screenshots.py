"""Take the screenshots of the documents: of the web page, of a report and of TensorBoard.

    python docs/screenshots.py --data_dir DATA

They are saved in docs/images. The first call trains two networks on MNIST, in build/screenshots.
The web page uses the pretrained network.
"""

import argparse
import math
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from mnist_lightning.data.datasets import SOURCES

IMAGES = Path(__file__).parent / "images"
# Without a GPU, Chromium draws the points of TensorBoard's projector in software.
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PROGRAM = [sys.executable, "-m", "mnist_lightning"]
COMPARED = Path("compared/lightning_logs")  # the runs of TensorBoard and the report
RUNS = {
    COMPARED / "version_0": ["--trainer.max_epochs", "10"],
    COMPARED / "version_1": [
        *("--model.network", "DigitNet", "--data.batch_size", "64", "--trainer.max_epochs", "4")
    ],
}
LAYERS = 18  # of the pretrained network, with its input
THREE = [(0.37, 0.22), (0.62, 0.22), (0.47, 0.45), (0.62, 0.5), (0.64, 0.68), (0.5, 0.78)]
THREE.append((0.35, 0.73))
NINE = [
    [
        (0.5 + 0.15 * math.cos(turn), 0.35 + 0.15 * math.sin(turn))
        for turn in np.linspace(0, 2 * math.pi, 20)
    ],
    [(0.65, 0.3), (0.65, 0.8)],
]
# Digits of a hand that slants to the right: their labels, strokes, and angles in degrees.
SLANTED = [
    (1, [[(0.3, 0.5), (0.52, 0.2), (0.52, 0.8)]], 25),
    (1, [[(0.3, 0.45), (0.5, 0.2), (0.5, 0.8)], [(0.3, 0.8), (0.7, 0.8)]], 25),
    (4, [[(0.42, 0.2), (0.33, 0.55), (0.68, 0.55)], [(0.6, 0.35), (0.6, 0.85)]], 40),
    (7, [[(0.33, 0.25), (0.66, 0.25), (0.45, 0.8)], [(0.38, 0.52), (0.64, 0.52)]], 25),
]
LINES, DIGITS_PER_LINE, CELL = 2, 4, 130  # of the made-up photo; pixels


def train(root: Path, data_dir: Path) -> None:
    """Train the runs that are missing."""
    for run, options in RUNS.items():
        if not (root / run / "predictions.csv").exists():
            place = ["--run_dir", str(root / run), "--data.data_dir", str(data_dir)]
            subprocess.run([*PROGRAM, "fit", *options, *place], check=True)


def make_photo(data_dir: Path) -> Image.Image:
    """Return an image of ruled paper with test digits of MNIST, brighter on the right."""
    generator = np.random.default_rng(1)
    digits = SOURCES["mnist"].load(data_dir).test_images[: LINES * DIGITS_PER_LINE].numpy()
    paper = np.full((LINES * CELL + 40, DIGITS_PER_LINE * CELL + 40), 225.0)
    paper[15::37] = paper[16::37] = 165
    for index, digit in enumerate(digits):
        top, left = (20 + CELL * part for part in divmod(index, DIGITS_PER_LINE))
        ink = np.asarray(Image.fromarray(digit).resize((CELL, CELL), Image.Resampling.BICUBIC))
        paper[top : top + CELL, left : left + CELL] -= ink / 255 * 140
    paper *= np.linspace(0.75, 1.0, paper.shape[1])
    paper += generator.normal(0, 3, paper.shape)
    return Image.fromarray(paper.clip(0, 255).astype(np.uint8))


@contextmanager
def serve(command: list[str]) -> Iterator[str]:
    """Start a server, and yield the address that it prints."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        try:
            for line in server.stdout:
                if match := re.search(r"http://\S+:\d+", line):
                    yield match[0]
                    break
            else:
                raise RuntimeError(f"{command[0]} printed no address")
        finally:
            server.send_signal(signal.SIGINT)


def browser_path() -> str | None:
    """Return the path of an installed Chromium, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)


def open_page(browser: Browser, address: str, height: int, width: int = 1000) -> Page:
    """Open a page in a window; its screenshots are 1000 pixels wide."""
    size: ViewportSize = {"width": width, "height": height}
    page = browser.new_page(viewport=size, device_scale_factor=1000 / width)
    page.goto(address)
    return page


def show_web_page(browser: Browser, root: Path, photo: Path) -> None:
    """Draw a digit on the web page; then read a photo, in dark mode."""
    command = [*PROGRAM, "serve", "pretrained", "--port", "0", "--collect", str(root)]
    with serve(command) as address:
        page = open_page(browser, address, 700)
        expect(page.locator("#run option").first).to_be_attached()
        box = page.locator("#paper").bounding_box()
        assert box is not None
        for number, (x, y) in enumerate(THREE):
            page.mouse.move(
                box["x"] + x * box["width"], box["y"] + y * box["height"], steps=1 + 5 * number
            )
            page.mouse.down()
        page.mouse.up()
        expect(page.locator("#correction")).to_be_visible()
        page.screenshot(path=IMAGES / "page.png")
        page.emulate_media(color_scheme="dark")
        page.locator("#file").set_input_files(photo)
        expect(page.locator("#digits button")).to_have_count(LINES * DIGITS_PER_LINE)
        page.screenshot(path=IMAGES / "page_photo.png")


def show_layers(browser: Browser) -> None:
    """Draw a 9; show the layers, one unit, the view in 3D, and the stroke that decides."""
    with serve([*PROGRAM, "serve", "pretrained", "--port", "0"]) as address:
        page = open_page(browser, address, 1500, width=1250)
        expect(page.locator("#layers canvas")).to_have_count(LAYERS, timeout=60_000)
        expect(page.locator("#neighbors")).to_be_visible(timeout=60_000)
        draw_strokes(page, NINE)
        expect(page.locator("#nearest canvas")).to_have_count(10, timeout=60_000)
        page.locator("#layers canvas").nth(2).focus()
        page.click("#step-next")
        page.locator("#inside").screenshot(path=IMAGES / "page_inside.png")
        page.locator("#neighbors").screenshot(path=IMAGES / "page_neighbors.png")
        page.click("#why-toggle")
        expect(page.locator("#why-text")).to_contain_text("Without", timeout=20_000)
        page.locator(".columns").screenshot(path=IMAGES / "page_why.png")
        page.emulate_media(color_scheme="dark")
        page.click("#view-solid")
        page.locator("#inside").screenshot(path=IMAGES / "page_layers_3d.png")


def draw_strokes(page: Page, strokes: list[list[tuple[float, float]]]) -> None:
    """Draw strokes, whose points are shares of the sheet."""
    box = page.locator("#paper").bounding_box()
    assert box is not None
    for stroke in strokes:
        for number, (x, y) in enumerate(stroke):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
            if number == 0:
                page.mouse.down()
        page.mouse.up()


def show_comparison(browser: Browser, root: Path) -> None:
    """Draw a slanted 4, which two networks read differently."""
    network = str((root / COMPARED / "version_0").resolve())
    command = [*PROGRAM, "serve", network, "--port", "0"]
    with serve(command) as address:
        page = open_page(browser, address, 780)
        expect(page.locator("#layers canvas").first).to_be_visible(timeout=60_000)
        _, strokes, degrees = SLANTED[2]
        draw_strokes(page, [[turn(point, degrees) for point in stroke] for stroke in strokes])
        page.select_option("#compare", "pretrained")
        expect(page.locator("#agreement")).to_contain_text("read", timeout=60_000)
        page.screenshot(path=IMAGES / "page_compare.png")


def show_teaching(browser: Browser, root: Path, data_dir: Path) -> None:
    """Correct slanted digits, and let the network learn them."""
    folder = root / "corrected"
    shutil.rmtree(folder, ignore_errors=True)
    command = [*PROGRAM, "serve", "pretrained", "--port", "0", "--teach"]
    command += ["--collect", str(folder), "--data.data_dir", str(data_dir)]
    command += ["--trainer.default_root_dir", str(root / "taught")]
    with serve(command) as address:
        page = open_page(browser, address, 1000)
        expect(page.locator("#layers canvas")).to_have_count(LAYERS, timeout=60_000)
        for label, strokes, degrees in SLANTED:
            if page.locator("#clear").is_enabled():
                page.click("#clear")
            draw_strokes(page, [[turn(point, degrees) for point in stroke] for stroke in strokes])
            page.locator("#correction button").nth(label).click()
            expect(page.locator("#kept")).to_have_text(f"Saved as a {label}, for training.")
        page.click("#learn")
        expect(page.locator("#comparison")).to_be_visible(timeout=300_000)
        page.locator("#teach").screenshot(path=IMAGES / "page_teach.png")


def turn(point: tuple[float, float], degrees: float) -> tuple[float, float]:
    """Turn a point clockwise around the center of the sheet."""
    angle = math.radians(degrees)
    x, y = point[0] - 0.5, point[1] - 0.5
    return (
        0.5 + x * math.cos(angle) - y * math.sin(angle),
        0.5 + x * math.sin(angle) + y * math.cos(angle),
    )


def show_training(browser: Browser, root: Path) -> None:
    """Take a screenshot of the page that shows a training, after its third epoch."""
    with serve([*PROGRAM, "serve", str(root / COMPARED / "version_0"), "--port", "0"]) as address:
        page = open_page(browser, f"{address}/watch", 1200)
        expect(page.locator("#network")).to_be_visible()
        page.locator("#epoch").fill("3")
        expect(page.locator("#moment")).to_have_text("after epoch 3")
        page.locator("body").screenshot(path=IMAGES / "watch.png")


def show_report(browser: Browser, root: Path, data_dir: Path) -> None:
    """Take a screenshot of the top of a report."""
    run = root / COMPARED / "version_0"
    subprocess.run([*PROGRAM, "report", str(run), "--data.data_dir", str(data_dir)], check=True)
    page = open_page(browser, (run / "report" / "report.html").resolve().as_uri(), 1300)
    path = IMAGES / "report.png"
    page.screenshot(path=path)
    with Image.open(path) as image:
        smaller = image.convert("RGB").quantize(128)  # less than half of the size
    smaller.save(path, optimize=True)


def show_tensorboard(browser: Browser, root: Path) -> None:
    """Take screenshots of three tabs, with the compared runs."""
    logs = str(root / COMPARED)
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", logs, "--port", "0"]
    with serve(command) as address:
        for tab, name, height in (
            ("custom_scalars", "curves", 480),
            ("images", "pictures", 924),
            ("projector", "points", 1000),
        ):
            page = open_page(browser, f"{address}/#{tab}", height, width=1400)
            page.wait_for_timeout(25_000)  # TensorBoard does not show when a tab is complete
            page.screenshot(path=IMAGES / f"tensorboard_{name}.png")


def main() -> None:
    """Train, and take the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True)
    data_dir = parser.parse_args().data_dir
    root = Path("build/screenshots")
    train(root, data_dir)
    photo = root / "photo.png"
    make_photo(data_dir).save(photo)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=ARGUMENTS)
        show_web_page(browser, root, photo)
        show_layers(browser)
        show_comparison(browser, root)
        show_teaching(browser, root, data_dir)
        show_training(browser, root)
        show_report(browser, root, data_dir)
        show_tensorboard(browser, root)
        browser.close()


if __name__ == "__main__":
    main()
