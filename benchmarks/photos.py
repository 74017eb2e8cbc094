"""How many of people's pictures a run's network reads, and of MNIST's own on larger canvases.

    python benchmarks/photos.py --data_dir DATA RUN…

`DATA/photos` holds pictures and their `labels.csv` (file, label), `DATA` MNIST.
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
from mnist_lightning.inference import Recognizer
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.normalization import normalize

Ink = NDArray[np.uint8]
PASTED = 600


def plainly(path: Path) -> Ink:
    """Resize a picture to 28 x 28, as many a project does; dark ink is taken for granted."""
    return 255 - np.asarray(mnist_format.read(path).convert("L").resize((28, 28)))


def normally(path: Path) -> Ink:
    """Bring a picture to MNIST's form."""
    return mnist_format.from_image(mnist_format.read(path))


def pasted(digit: Ink, index: int, generator: np.random.Generator) -> Image.Image:
    """Enlarge a digit and put it somewhere on a larger canvas, read back from a file's bytes."""
    side = round(28 * generator.uniform(2, 20))
    large = Image.fromarray(digit).resize((side, side), Image.Resampling((0, 1, 2, 3)[index % 4]))
    width, height = (int(side * generator.uniform(1, 2.5)) + 10 for _ in range(2))
    canvas = Image.new("L", (width, height))
    place = (int(generator.integers(width - side + 1)), int(generator.integers(height - side + 1)))
    canvas.paste(large, place)
    if index % 2:
        canvas = Image.fromarray(255 - np.asarray(canvas))
    content = io.BytesIO()
    canvas.save(content, "JPEG" if index % 3 == 0 else "PNG")
    return mnist_format.read(io.BytesIO(content.getvalue()))


def labels(recognizer: Recognizer, pictures: list[Ink]) -> NDArray[np.int64]:
    """Read each picture (28, 28)."""
    probabilities = recognizer.probabilities(normalize(torch.from_numpy(np.stack(pictures))))
    found: NDArray[np.int64] = probabilities.argmax(dim=1).numpy()
    return found


def main() -> None:
    """Print a line a run and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--data_dir", type=Path, required=True)
    asked = parser.parse_args()
    folder = asked.data_dir / "photos"
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = np.array([int(row["label"]) for row in rows])
    sources = np.array([row["file"].split("/")[0] for row in rows])
    files = [folder / row["file"] for row in rows]
    ways = {way.__name__: [way(file) for file in files] for way in (plainly, normally)}
    generator = np.random.default_rng(5)
    test = SOURCES["mnist"].load(asked.data_dir).test_images.numpy()
    originals = [test[index] for index in generator.permutation(len(test))[:PASTED]]
    canvases = [pasted(digit, index, generator) for index, digit in enumerate(originals)]
    copies = [mnist_format.from_image(canvas) for canvas in canvases]
    for run in asked.runs:
        recognizer = load(run)
        for way, pictures in ways.items():
            right = labels(recognizer, pictures) == wanted
            by_source = {source: right[sources == source] for source in np.unique(sources)}
            parts = [f"{source} {of.sum()}/{len(of)}" for source, of in by_source.items()]
            print(f"{run} {way}: {right.sum()} of {len(right)}: {', '.join(parts)}")
        same = labels(recognizer, copies) == labels(recognizer, originals)
        print(f"{run} pasted: {same.mean():.2%} of {PASTED} keep the label they have as they are")


if __name__ == "__main__":
    main()
