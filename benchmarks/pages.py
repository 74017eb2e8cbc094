"""How often the digits on a page are all found, in order, and read.

    python benchmarks/pages.py --data_dir DATA [RUN]

Pages are made of MNIST's training digits, of random sizes, at random distances.
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

PAGES = 60


class Kind(NamedTuple):
    """What pages are like: gaps are in digits' heights, sizes in MNIST's."""

    name: str
    digits: int
    lines: int = 1
    gaps: tuple[float, float] = (0.1, 0.6)
    size: float = 3.0
    ruled: bool = False


KINDS = [
    Kind("one digit", 1),
    Kind("two digits", 2),
    Kind("five digits", 5),
    Kind("four, nearly touching", 4, gaps=(0.02, 0.1)),
    Kind("three lines of four", 4, lines=3),
    Kind("six, as small as MNIST's", 6, size=1.0),
    Kind("ten, eight times as large", 10, size=8.0),
    Kind("three on ruled lines as dark as the pen", 3, ruled=True),
]


def make(
    kind: Kind, digits: NDArray[np.uint8], labels: NDArray[np.int64], generator: np.random.Generator
) -> tuple[Image.Image, list[int]]:
    """Make a page and say what stands on it."""
    height = round(20 * kind.size * 1.5)
    sheet = Image.new("L", (round(40 + kind.digits * 40 * kind.size), height * kind.lines + 40))
    true = []
    for line in range(kind.lines):
        across = 20
        for index in generator.integers(len(digits), size=kind.digits):
            ink = Image.fromarray(mnist_format.crop_to_ink(digits[index]))
            scale = kind.size * generator.uniform(0.85, 1.15)
            size = max(1, round(ink.width * scale)), max(1, round(ink.height * scale))
            down = 20 + height * line + round(height * generator.uniform(0, 0.15))
            sheet.paste(ink.resize(size, Image.Resampling.BILINEAR), (across, down))
            across += size[0] + round(20 * kind.size * generator.uniform(*kind.gaps))
            true.append(int(labels[index]))
    page = 255 - np.asarray(sheet).astype(np.uint8)
    if kind.ruled:
        for top in range(15, len(page), 37):
            page[top : top + 2] = 30
    return Image.fromarray(page), true


def main() -> None:
    """Print a line a kind of page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="best", metavar="RUN")
    parser.add_argument("--data_dir", type=Path, required=True)
    asked = parser.parse_args()
    recognizer = load(asked.run)
    data = SOURCES["mnist"].load(asked.data_dir)
    digits, labels = data.train_images.numpy(), data.train_labels.numpy()
    generator = np.random.default_rng(2)
    for kind in KINDS:
        counted = read = 0
        for _ in range(PAGES):
            page, true = make(kind, digits, labels, generator)
            found = [reading.label for reading in recognizer.read(page)]
            counted += len(found) == len(true)
            read += found == true
        print(f"{kind.name}: all found in {counted} of {PAGES}, all read in {read}", flush=True)


if __name__ == "__main__":
    main()
