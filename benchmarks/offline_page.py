"""Compare an exported page in a browser with Python: the labels, and the pixels of photos.

    python benchmarks/offline_page.py --data_dir DATA RUN

Export RUN first: `export RUN --format html`. `DATA/photos` contains images, `DATA` contains MNIST.
"""

import argparse
import base64
import shutil
import statistics
from pathlib import Path

import numpy as np
import torch
from playwright.sync_api import Page, sync_playwright

from mnist_lightning import load
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.ink_extraction import upright
from mnist_lightning.preprocessing.normalization import normalize
from mnist_lightning.runs import lookup, run_directory

BATCH_SIZE = 500
PREDICT_LABELS = """(text) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const logitsOf = network.load(JSON.parse($("model").textContent)).logits;
  return Array.from({ length: bytes.length / 784 }, (_, i) => {
    const logits = logitsOf(bytes.subarray(784 * i, 784 * (i + 1)));
    return logits.indexOf(Math.max(...logits));
  });
}"""
# The answer for the file that is chosen on the page.
READ_PHOTO = """async () => {
  while (!photo || busy) await new Promise((done) => setTimeout(done, 5));
  return [[...verdict.answer.digits[0].pixels], verdict.answer.milliseconds];
}"""


def predict_labels(page: Page, images: mnist_format.Ink) -> list[int]:
    """Return the labels that the page predicts for images (N, 28, 28)."""
    labels: list[int] = []
    for start in range(0, len(images), BATCH_SIZE):
        text = base64.b64encode(images[start : start + BATCH_SIZE].tobytes()).decode()
        labels += page.evaluate(PREDICT_LABELS, text)
    return labels


def compare_photos(page: Page, paths: list[Path], multiple: str) -> tuple[list[int], list[float]]:
    """Return the largest pixel difference of each network input, and the page's milliseconds."""
    differences, durations_ms = [], []
    page.select_option("#multiple", multiple)
    for path in paths:
        page.evaluate("clear()")
        page.set_input_files("#file", path)
        values, milliseconds = page.evaluate(READ_PHOTO)
        pixels = np.array(values).reshape(28, 28)
        image = upright(mnist_format.read(path))
        digits = mnist_format.find_digits(image, None if multiple == "auto" else False)
        differences.append(int(np.abs(pixels - digits[0].ink).max()))
        durations_ms.append(milliseconds)
    return differences, durations_ms


def main() -> None:
    """Print the number of equal labels, and the largest difference of the pixels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--data_dir", type=Path, required=True)
    multiple_help = "the number of digits; auto: also look for forms"
    parser.add_argument(
        "--multiple", choices=("false", "auto"), default="false", help=multiple_help
    )
    parser.add_argument("--page", type=Path, help="the exported page, if it is not in the run")
    options = parser.parse_args()
    run, checkpoint = lookup.find_network(options.run, Path(run_directory.LOGS_FOLDER))
    images = SOURCES["mnist"].load(options.data_dir).test_images
    expected = load(checkpoint or run.folder).probabilities(normalize(images)).argmax(dim=1)
    photos = options.data_dir / "photos"
    paths = sorted(path for path in photos.rglob("*") if path.suffix in (".png", ".jpg"))
    file = options.page or run.folder / "export" / "html" / "model.html"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page()
        page.goto(file.resolve().as_uri())
        equal = (torch.tensor(predict_labels(page, images.numpy())) == expected).sum()
        print(f"{file}: {file.stat().st_size / 1000:.0f} kB")
        print(f"{equal:,} of {len(expected):,} labels equal")
        differences, durations_ms = compare_photos(page, paths, options.multiple)
        print(
            f"{len(paths)} photos: {differences.count(0)} identical, "
            f"largest difference {max(differences)} of 255; "
            f"{statistics.median(durations_ms):.0f} ms (median), {max(durations_ms):.0f} (maximum)"
        )
        browser.close()


if __name__ == "__main__":
    main()
