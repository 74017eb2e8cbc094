"""Count the pages on which all digits are found, and read correctly in order.

    python benchmarks/pages.py --data_dir DATA [RUN]

The pages contain training digits of MNIST, with random sizes and gaps.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_lightning import load
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.preprocessing import mnist_format

NUM_PAGES = 60


class PageKind(NamedTuple):
    """The layout of a page.

    Attributes:
        name: its name in the output.
        digits: the number of digits per line.
        lines: the number of lines.
        gaps: the range of the gaps, relative to the height of a digit.
        scale: the size of the digits, relative to MNIST's.
        ruled: draw ruled lines.
    """

    name: str
    digits: int
    lines: int = 1
    gaps: tuple[float, float] = (0.1, 0.6)
    scale: float = 3.0
    ruled: bool = False


KINDS = [
    PageKind("one digit", 1),
    PageKind("two digits", 2),
    PageKind("five digits", 5),
    PageKind("four, nearly touching", 4, gaps=(0.02, 0.1)),
    PageKind("three lines of four", 4, lines=3),
    PageKind("six, as small as MNIST's", 6, scale=1.0),
    PageKind("ten, eight times as large", 10, scale=8.0),
    PageKind("three on ruled lines as dark as the pen", 3, ruled=True),
]


def draw_page(
    kind: PageKind,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    generator: np.random.Generator,
) -> tuple[Image.Image, list[int]]:
    """Draw a page; return it and the labels of its digits."""
    line_height = round(20 * kind.scale * 1.5)
    width = round(40 + kind.digits * 40 * kind.scale)
    sheet = Image.new("L", (width, line_height * kind.lines + 40))
    page_labels = []
    for line in range(kind.lines):
        left = 20
        for index in generator.integers(len(images), size=kind.digits):
            ink = Image.fromarray(mnist_format.crop_to_ink(images[index]))
            scale = kind.scale * generator.uniform(0.85, 1.15)
            size = max(1, round(ink.width * scale)), max(1, round(ink.height * scale))
            top = 20 + line_height * line + round(line_height * generator.uniform(0, 0.15))
            sheet.paste(ink.resize(size, Image.Resampling.BILINEAR), (left, top))
            left += size[0] + round(20 * kind.scale * generator.uniform(*kind.gaps))
            page_labels.append(int(labels[index]))
    page = 255 - np.asarray(sheet).astype(np.uint8)
    if kind.ruled:
        for top in range(15, len(page), 37):
            page[top : top + 2] = 30
    return Image.fromarray(page), page_labels


def main() -> None:
    """Print the results for each kind of page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="best", metavar="RUN")
    parser.add_argument("--data_dir", type=Path, required=True)
    options = parser.parse_args()
    recognizer = load(options.run)
    data = SOURCES["mnist"].load(options.data_dir)
    images, labels = data.train_images.numpy(), data.train_labels.numpy()
    generator = np.random.default_rng(2)
    for kind in KINDS:
        all_found = all_correct = 0
        for _ in range(NUM_PAGES):
            page, expected = draw_page(kind, images, labels, generator)
            predicted = [reading.label for reading in recognizer.read(page)]
            all_found += len(predicted) == len(expected)
            all_correct += predicted == expected
        counts = f"all found on {all_found} of {NUM_PAGES} pages, all read on {all_correct}"
        print(f"{kind.name}: {counts}", flush=True)


if __name__ == "__main__":
    main()
