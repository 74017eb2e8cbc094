"""Count the correct predictions for images that are difficult to preprocess.

    python benchmarks/difficult_images.py --data_dir DATA [RUN]

MNIST's test digits, ten times as large: cropped at the edge of the ink, on tilted ruled or squared
paper, on a sheet that lies on a table, and in ink that differs from the paper only in color.
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

Ink = NDArray[np.float64]  # the share of ink at each pixel
Color = tuple[int, int, int]
NUM_IMAGES, DIGIT_SIDE, SHEET_SIDE = 100, 280, 800
INK_COLOR, PAPER_COLOR = (40, 40, 50), (235, 232, 225)


def colorize(ink: Ink, color: Color = INK_COLOR, paper: Color = PAPER_COLOR) -> Image.Image:
    """Return an image of the ink on paper."""
    mixed = ink[:, :, None] * np.array(color) + (1 - ink[:, :, None]) * np.array(paper)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def place_on_sheet(digit: Ink) -> Ink:
    """Place a digit in the center of a sheet."""
    return np.pad(digit, (SHEET_SIDE - DIGIT_SIDE) // 2)


def add_lines(ink: Ink, degrees: float, squared: bool) -> Ink:
    """Add tilted lines, 2 pixels wide and nearly as dark as the ink."""
    grid = np.zeros((SHEET_SIDE + 200, SHEET_SIDE + 200), np.uint8)
    for offset in range(0, len(grid), 80):
        grid[offset : offset + 2] = 230
        if squared:
            grid[:, offset : offset + 2] = 230
    rotated = Image.fromarray(grid).rotate(degrees, Image.Resampling.BICUBIC)
    lines: Ink = np.asarray(rotated)[100:-100, 100:-100] / 255
    return np.maximum(ink, lines)


def crop(digit: Ink) -> Ink:
    """Crop a digit at the edge of its ink."""
    return mnist_format.crop_to_ink(np.rint(255 * digit).astype(np.uint8)) / 255


def place_on_table(digit: Ink) -> Image.Image:
    """Return an image of a sheet on a dark table."""
    sheet = np.asarray(colorize(place_on_sheet(digit)))
    return Image.fromarray(np.pad(sheet, ((150, 150), (150, 150), (0, 0)), constant_values=40))


KINDS: dict[str, Callable[[Ink], Image.Image]] = {
    "close crop": lambda digit: colorize(crop(digit)),
    "ruled, 1 degree": lambda digit: colorize(add_lines(place_on_sheet(digit), 1, squared=False)),
    "ruled, 4 degrees": lambda digit: colorize(add_lines(place_on_sheet(digit), 4, squared=False)),
    "squared, 2 degrees": lambda digit: colorize(add_lines(place_on_sheet(digit), 2, squared=True)),
    "on a table": place_on_table,
    "red on green": lambda digit: colorize(place_on_sheet(digit), (220, 40, 40), (60, 130, 60)),
    "yellow on white": lambda digit: colorize(
        place_on_sheet(digit), (255, 255, 0), (255, 255, 255)
    ),
}


def main() -> None:
    """Print the number of correct predictions for each kind of image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="best", metavar="RUN")
    parser.add_argument("--data_dir", type=Path, required=True)
    options = parser.parse_args()
    recognizer = load(options.run)
    data = SOURCES["mnist"].load(options.data_dir)
    indices = np.random.default_rng(7).permutation(len(data.test_labels))[:NUM_IMAGES]
    for name, transform in KINDS.items():
        correct = rejected = 0
        for index in indices:
            image = Image.fromarray(data.test_images[index].numpy())
            image = image.resize((DIGIT_SIDE, DIGIT_SIDE), Image.Resampling.BICUBIC)
            try:
                readings = recognizer.read(transform(np.asarray(image) / 255))
            except ValueError:
                rejected += 1
                continue
            labels = [reading.label for reading in readings]
            correct += labels == [int(data.test_labels[index])]
        print(f"{name}: {correct} of {NUM_IMAGES} correct, {rejected} rejected", flush=True)


if __name__ == "__main__":
    main()
