"""How equal an exported page is to Python in a real browser: labels, and pixels of people's photos.

    python benchmarks/offline_page.py --data_dir DATA RUN

RUN was exported before: `export RUN --format html`. `DATA/photos` holds pictures, `DATA` MNIST.
"""

import argparse
import base64
import io
import shutil
import statistics
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from mnist_lightning import load
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.ink_extraction import upright
from mnist_lightning.preprocessing.normalization import normalize
from mnist_lightning.runs import lookup, run_directory

AT_ONCE = 500
LABELS = """(text) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const logitsOf = network.load(JSON.parse($("model").textContent));
  return Array.from({ length: bytes.length / 784 }, (_, i) => {
    const logits = logitsOf(bytes.subarray(784 * i, 784 * (i + 1)));
    return logits.indexOf(Math.max(...logits));
  });
}"""
# As if it were chosen on the page.
SEEN = """async () => {
  while (!photo) await new Promise((done) => setTimeout(done, 5));
  const answer = await backend.read(currentImage(), "false");
  return [answer.digits[0].input, answer.milliseconds];
}"""


def labels(page: Page, pixels: mnist_format.Ink) -> list[int]:
    """What the page's network reads in pictures (N, 28, 28)."""
    found: list[int] = []
    for at in range(0, len(pixels), AT_ONCE):
        text = base64.b64encode(pixels[at : at + AT_ONCE].tobytes()).decode()
        found += page.evaluate(LABELS, text)
    return found


def differences(page: Page, paths: list[Path]) -> tuple[list[int], list[float]]:
    """The largest difference of each photo's 28x28 to Python's, and how long the page took, ms."""
    largest, took = [], []
    for path in paths:
        page.evaluate("clear()")
        page.set_input_files("#file", path)
        address, milliseconds = page.evaluate(SEEN)
        content = base64.b64decode(address.partition(",")[2])
        seen = np.asarray(Image.open(io.BytesIO(content)).convert("L")).astype(int)
        wanted = mnist_format.find_digits(upright(mnist_format.read(path)), multiple=False)[0].ink
        largest.append(int(np.abs(seen - wanted).max()))
        took.append(milliseconds)
    return largest, took


def main() -> None:
    """Print how many labels agree, and how far the pixels differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--data_dir", type=Path, required=True)
    asked = parser.parse_args()
    run, _ = lookup.find(asked.run, Path(run_directory.LOGS_FOLDER))
    pixels = SOURCES["mnist"].load(asked.data_dir).test_images
    wanted = load(run.folder).probabilities(normalize(pixels)).argmax(dim=1)
    photos = asked.data_dir / "photos"
    paths = sorted(path for path in photos.rglob("*") if path.suffix in (".png", ".jpg"))
    file = run.folder / "export" / "html" / "model.html"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page()
        page.goto(file.resolve().as_uri())
        same = (torch.tensor(labels(page, pixels.numpy())) == wanted).sum()
        print(f"{file}, {file.stat().st_size / 1000:.0f} kB")
        print(f"{same:,} of {len(wanted):,} labels equal")
        largest, took = differences(page, paths)
        print(
            f"{len(paths)} photos: levels of difference at most {max(largest)}, none in "
            f"{largest.count(0)}; read in {statistics.median(took):.0f} ms, at most {max(took):.0f}"
        )
        browser.close()


if __name__ == "__main__":
    main()
