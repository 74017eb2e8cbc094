"""How many digits are read in pictures that are hard to look at.

    python benchmarks/hard_pictures.py --data_dir DATA [RUN]

MNIST's test digits, ten times as large: in crops at the very ink, on ruled and squared paper at a
slant, on a sheet that lies on a table, and in ink that differs from its paper by color alone.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_lightning import load
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.preprocessing import mnist_format

Share = NDArray[np.float64]  # of ink at each pixel
Color = tuple[int, int, int]
COUNT, SIDE, SHEET = 100, 280, 800
INK, PAPER = (40, 40, 50), (235, 232, 225)


def colored(ink: Share, of: Color = INK, paper: Color = PAPER) -> Image.Image:
    """Paint ink on paper."""
    mixed = ink[:, :, None] * np.array(of) + (1 - ink[:, :, None]) * np.array(paper)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def on_sheet(digit: Share) -> Share:
    """Put a digit into the middle of a sheet."""
    return np.pad(digit, (SHEET - SIDE) // 2)


def ruled(ink: Share, degrees: float, both: bool) -> Share:
    """Draw lines 2 pixels thick, nearly as dark as the pen, at a slant."""
    wide = np.zeros((SHEET + 200, SHEET + 200), np.uint8)
    for line in range(0, len(wide), 80):
        wide[line : line + 2] = 230
        if both:
            wide[:, line : line + 2] = 230
    turned = Image.fromarray(wide).rotate(degrees, Image.Resampling.BICUBIC)
    lines: Share = np.asarray(turned)[100:-100, 100:-100] / 255
    return np.maximum(ink, lines)


def close(digit: Share) -> Share:
    """Crop at the very ink."""
    return mnist_format.crop_to_ink(np.rint(255 * digit).astype(np.uint8)) / 255


def on_table(digit: Share) -> Image.Image:
    """Lay the sheet on something dark."""
    sheet = np.asarray(colored(on_sheet(digit)))
    return Image.fromarray(np.pad(sheet, ((150, 150), (150, 150), (0, 0)), constant_values=40))


WAYS: dict[str, Callable[[Share], Image.Image]] = {
    "close crop": lambda digit: colored(close(digit)),
    "ruled, 1 degree": lambda digit: colored(ruled(on_sheet(digit), 1, both=False)),
    "ruled, 4 degrees": lambda digit: colored(ruled(on_sheet(digit), 4, both=False)),
    "squared, 2 degrees": lambda digit: colored(ruled(on_sheet(digit), 2, both=True)),
    "on a table": on_table,
    "red on green": lambda digit: colored(on_sheet(digit), (220, 40, 40), (60, 130, 60)),
    "yellow on white": lambda digit: colored(on_sheet(digit), (255, 255, 0), (255, 255, 255)),
}


def main() -> None:
    """Print a line a way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="best", metavar="RUN")
    parser.add_argument("--data_dir", type=Path, required=True)
    asked = parser.parse_args()
    recognizer = load(asked.run)
    data = SOURCES["mnist"].load(asked.data_dir)
    chosen = np.random.default_rng(7).permutation(len(data.test_labels))[:COUNT]
    for name, way in WAYS.items():
        right = refused = 0
        for index in chosen:
            picture = Image.fromarray(data.test_images[index].numpy())
            large = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 255
            try:
                found = [reading.label for reading in recognizer.read(way(large))]
            except ValueError:
                refused += 1
                continue
            right += found == [int(data.test_labels[index])]
        print(f"{name}: {right} of {COUNT} right, {refused} refused", flush=True)


if __name__ == "__main__":
    main()
