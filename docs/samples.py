"""Make the images in samples/, from the digits of MNIST's training images.

    python docs/samples.py --data_dir DATA

Each looks like a photo or a scan of another kind of paper. `tests/deployment/test_samples.py` reads
them with the pretrained network.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from mnist_lightning.data.datasets import SOURCES, DigitData

SAMPLES = Path(__file__).parent.parent / "samples"
DIGIT = 140  # pixels; the side of the square of a digit
Gray = NDArray[np.float32]


def enlarge(pixels: NDArray[np.uint8], side: int = DIGIT) -> Gray:
    """Return an MNIST image (28, 28) as the smooth ink (side, side) of a pen, 0 to 1."""
    large = Image.fromarray(pixels).resize((4 * side, 4 * side), Image.Resampling.BICUBIC)
    sharp = large.filter(ImageFilter.GaussianBlur(side / 16)).point(lambda v: 255 * (v > 110))
    return np.asarray(sharp.resize((side, side), Image.Resampling.LANCZOS), np.float32) / 255


def write(data: DigitData, text: str, columns: int, seed: int) -> Gray:
    """Return the ink of digits in lines of `columns`; each is a little displaced."""
    generator = np.random.default_rng(seed)
    lines = -(-len(text) // columns)
    ink = np.zeros((lines * DIGIT + 40, columns * DIGIT + 40), np.float32)
    labels = data.train_labels.numpy()
    for place, digit in enumerate(text):
        chosen = generator.choice(np.flatnonzero(labels == int(digit)))
        row, column = divmod(place, columns)
        top, left = 20 + row * DIGIT, 20 + column * DIGIT + int(generator.integers(-9, 10))
        top += int(generator.integers(-9, 10))
        part = ink[top : top + DIGIT, left : left + DIGIT]
        np.maximum(part, enlarge(data.train_images[chosen].numpy()), out=part)
    return ink


def photograph(ink: Gray, paper: float, pen: float, seed: int) -> Gray:
    """Return ink on paper: brightness (H, W), 0 to 255, in uneven light and with noise."""
    generator = np.random.default_rng(seed)
    height, width = ink.shape
    light = np.linspace(0.8, 1, width) * np.linspace(0.92, 1, height)[:, None]
    noise = generator.normal(0, 4, ink.shape)
    return ((paper + (pen - paper) * ink) * light + noise).astype(np.float32)


def rule(page: Gray, spacing: int = 35, shade: float = 165) -> Gray:
    """Draw the lines of ruled paper under the ink."""
    for row in range(spacing, len(page), spacing):
        page[row : row + 2] = np.minimum(page[row : row + 2], shade)
    return page


def form(data: DigitData, text: str, columns: int, seed: int) -> Gray:
    """Return a scan of a slightly rotated form, one digit in each ruled cell; a space is empty."""
    generator = np.random.default_rng(seed)
    lines, cell, side = -(-len(text) // columns), 90, 72
    page = Image.new("L", ((columns + 1) * cell, (lines + 1) * cell), 250)
    labels = data.train_labels.numpy()
    for place, digit in enumerate(text):
        row, column = divmod(place, columns)
        left, top = column * cell + cell // 2, row * cell + cell // 2
        ImageDraw.Draw(page).rectangle((left, top, left + cell, top + cell), outline=130, width=2)
        if digit != " ":
            chosen = generator.choice(np.flatnonzero(labels == int(digit)))
            ink = enlarge(data.train_images[chosen].numpy(), side)
            shift_x, shift_y = generator.integers(-6, 7, 2) + (cell - side) // 2
            mask = Image.fromarray((255 * ink).clip(0, 255).astype(np.uint8))
            page.paste(45, (left + int(shift_x), top + int(shift_y)), mask)
    rotated = page.rotate(1.5, Image.Resampling.BICUBIC, expand=True, fillcolor=250)
    return np.asarray(rotated, np.float32)


def scribble() -> Image.Image:
    """Return lines through random points: not a digit."""
    image = Image.new("L", (220, 220), 255)
    points = np.random.default_rng(5).uniform(40, 180, (14, 2)).tolist()
    ImageDraw.Draw(image).line([(x, y) for x, y in points], 0, 9, "curve")
    return image


def main() -> None:
    """Write all samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    data = SOURCES["mnist"].load(parser.parse_args().data_dir)
    chalk = photograph(write(data, "3", 1, seed=13), paper=62, pen=215, seed=2)
    green = np.stack([0.8 * chalk, chalk, 0.9 * chalk], axis=-1)
    blank = 235 + np.random.default_rng(4).normal(0, 3, (200, 200))  # a scan: even light
    images = {
        "seven": photograph(write(data, "7", 1, seed=1), paper=240, pen=40, seed=1),
        "page": photograph(write(data, "20261127", 4, seed=6), paper=235, pen=60, seed=6),
        "ruled": rule(photograph(write(data, "58064", 5, seed=3), paper=235, pen=45, seed=3)),
        "chalk": green,
        "form": form(data, "31415 9265", 5, seed=7),
        "blank": blank,
    }
    SAMPLES.mkdir(exist_ok=True)
    for name, values in images.items():
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(SAMPLES / f"{name}.png")
    scribble().save(SAMPLES / "scribble.png")


if __name__ == "__main__":
    main()
