"""Measure a run's accuracy on people's images, and on MNIST digits pasted onto larger canvases.

    python benchmarks/photos.py --data_dir DATA RUN…

`DATA/photos` contains images and `labels.csv` (file, label); `DATA` contains MNIST.
"""

import argparse
import csv
import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mnist_lightning import load
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.evaluation.forgetting import read_images
from mnist_lightning.inference import Recognizer
from mnist_lightning.preprocessing import mnist_format

Ink = NDArray[np.uint8]
NUM_PASTED = 600


def resize(path: Path) -> Ink:
    """Resize an image to 28 x 28, as many projects do; dark ink is assumed."""
    return 255 - np.asarray(mnist_format.read(path).convert("L").resize((28, 28)))


def preprocess(path: Path) -> Ink:
    """Convert an image to MNIST's format."""
    return mnist_format.from_image(mnist_format.read(path))


def paste_on_canvas(digit: Ink, index: int, generator: np.random.Generator) -> Image.Image:
    """Enlarge a digit, paste it at a random place of a canvas, and save and read the image."""
    side = round(28 * generator.uniform(2, 20))
    large = Image.fromarray(digit).resize((side, side), Image.Resampling((0, 1, 2, 3)[index % 4]))
    width, height = (int(side * generator.uniform(1, 2.5)) + 10 for _ in range(2))
    canvas = Image.new("L", (width, height))
    left, top = (int(generator.integers(size - side + 1)) for size in (width, height))
    canvas.paste(large, (left, top))
    if index % 2:
        canvas = Image.fromarray(255 - np.asarray(canvas))
    content = io.BytesIO()
    canvas.save(content, "JPEG" if index % 3 == 0 else "PNG")
    return mnist_format.read(io.BytesIO(content.getvalue()))


def predict_labels(recognizer: Recognizer, images: list[Ink]) -> NDArray[np.int64]:
    """Return the predicted labels of images (28, 28)."""
    return read_images(recognizer, torch.from_numpy(np.stack(images))).labels


def main() -> None:
    """Print the results of each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--data_dir", type=Path, required=True)
    options = parser.parse_args()
    folder = options.data_dir / "photos"
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = np.array([int(row["label"]) for row in rows])
    sources = np.array([row["file"].split("/")[0] for row in rows])
    paths = [folder / row["file"] for row in rows]
    inputs = {
        "resized": [resize(path) for path in paths],
        "preprocessed": [preprocess(path) for path in paths],
    }
    generator = np.random.default_rng(5)
    test_images = SOURCES["mnist"].load(options.data_dir).test_images.numpy()
    originals = [test_images[i] for i in generator.permutation(len(test_images))[:NUM_PASTED]]
    canvases = [paste_on_canvas(digit, i, generator) for i, digit in enumerate(originals)]
    pasted = [mnist_format.from_image(canvas) for canvas in canvases]
    for run in options.runs:
        recognizer = load(run)
        for name, images in inputs.items():
            correct = predict_labels(recognizer, images) == expected
            by_source = {source: correct[sources == source] for source in np.unique(sources)}
            counts = [f"{source} {part.sum()}/{len(part)}" for source, part in by_source.items()]
            print(f"{run} {name}: {correct.sum()} of {len(correct)}: {', '.join(counts)}")
        equal = predict_labels(recognizer, pasted) == predict_labels(recognizer, originals)
        print(f"{run} pasted: {equal.mean():.2%} of {NUM_PASTED} keep the label of the original")


if __name__ == "__main__":
    main()
