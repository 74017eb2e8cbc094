"""Measure a run's accuracy on small scans, of one bit or gray, with a margin or cropped.

    python benchmarks/small_scans.py --data_dir DATA RUN…

The scans are made of 1,500 of MNIST's validation digits; also scikit-learn's 8x8 digits.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mnist_lightning import load
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.data.splits import split
from mnist_lightning.evaluation.forgetting import read_images
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.text import percent

Ink = NDArray[np.uint8]
NUM_IMAGES = 1_500
MAX_STRETCH = 2.5  # a one remains narrower than the square


def shrink(digit: Ink, size: int, margin: int) -> Ink:
    """Reduce a digit, cropped at its ink, to `size` pixels on its longer side; add a margin."""
    image = Image.fromarray(mnist_format.crop_to_ink(np.where(digit > 40, digit, 0)))
    factor = size / max(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    return np.pad(np.asarray(image.resize((width, height), Image.Resampling.BOX)), margin)


def stretch(digit: Ink) -> Ink:
    """Stretch a digit to a square of 16 pixels."""
    cropped = mnist_format.crop_to_ink(np.where(digit > 40, digit, 0))
    height, width = cropped.shape
    missing = max(0, int(np.ceil((height / MAX_STRETCH - width) / 2)))
    padded = Image.fromarray(np.pad(cropped, ((0, 0), (missing, missing))))
    return np.asarray(padded.resize((16, 16), Image.Resampling.BICUBIC))


def one_bit(ink: Ink, threshold: int) -> Ink:
    """Return an image of two values."""
    return np.where(ink > threshold, 255, 0).astype(np.uint8)


KINDS: dict[str, Callable[[Ink], Ink]] = {
    "16x16, one bit": lambda digit: one_bit(shrink(digit, 16, margin=2), 127),
    "16x16, one bit, cropped": lambda digit: one_bit(shrink(digit, 16, margin=0), 89),
    "16x16, one bit, stretched": lambda digit: one_bit(stretch(digit), 100),
    "16x16, gray, cropped": lambda digit: shrink(digit, 16, margin=0),
    "8x8, gray": lambda digit: shrink(digit, 8, margin=1),
}


def scikit_learn_digits() -> tuple[list[Ink], NDArray[np.int64]]:
    """Return the 8x8 digits without any preprocessing, and their labels."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return [np.rint(image * 255 / 16).astype(np.uint8) for image in bunch.images], bunch.target


def convert(ink: Ink) -> Ink:
    """Convert a scan to MNIST's format; an empty image if no digit is found."""
    try:
        return mnist_format.from_image(Image.fromarray(255 - ink))
    except ValueError:
        return np.zeros((mnist_format.SIZE, mnist_format.SIZE), np.uint8)


def main() -> None:
    """Print the accuracy of each run on each kind of scan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--data_dir", type=Path, required=True)
    options = parser.parse_args()
    data = SOURCES["mnist"].load(options.data_dir)
    _, validation = split(len(data.train_labels), 5_000, 0)
    chosen = validation[:NUM_IMAGES]
    digits, labels = data.train_images[chosen].numpy(), data.train_labels[chosen].numpy()
    scans = {kind: ([draw(digit) for digit in digits], labels) for kind, draw in KINDS.items()}
    scans["8x8, scikit-learn"] = scikit_learn_digits()
    recognizers = {run: load(run) for run in options.runs}
    for kind, (images, expected) in scans.items():
        converted = np.stack([convert(ink) for ink in images])
        for run, recognizer in recognizers.items():
            labels = read_images(recognizer, torch.from_numpy(converted)).labels
            correct = int((labels == expected).sum())
            share = percent(correct / len(expected))
            print(f"{kind}: {run}: {correct} of {len(expected)}, {share}", flush=True)


if __name__ == "__main__":
    main()
