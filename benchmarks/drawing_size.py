"""Compare the labels of drawings that the page reduces to different sizes before it reads them.

    python benchmarks/drawing_size.py [--run pretrained] [--count 2000]

The drawings are the forms of `strokes` as straight lines through randomly moved points, with the
pen of the page, in random sizes and places.
"""

import argparse

import numpy as np
import torch
from PIL import Image, ImageDraw

from mnist_lightning import load
from mnist_lightning.data.synthetic import FORMS, POINT
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.normalization import normalize

SHEET, PEN, INK = 420, 26, 17  # pixels of the page's sheet and pen; the gray of its ink
ZOOM = 4  # for smooth edges
SIDES = 280, 140
JITTER = 0.03  # standard deviation of a point, relative to the height of the digit


def draw(form: str, generator: np.random.Generator) -> Image.Image:
    """Draw a form on a sheet."""
    sheet = Image.new("L", (SHEET * ZOOM, SHEET * ZOOM), 255)
    pen = ImageDraw.Draw(sheet)
    height = generator.uniform(150, 330)
    left, top = (generator.uniform(30, SHEET - 30 - side) for side in (0.75 * height, height))
    for stroke in form.split("|"):
        points = []
        for name in POINT.findall(stroke):
            x, y = (
                int(part) / 100 + JITTER * generator.standard_normal() for part in name.split(",")
            )
            points.append((ZOOM * (left + height * x), ZOOM * (top + height * y)))
        pen.line(points, INK, PEN * ZOOM, "curve")
        for point in points:
            pen.circle(point, PEN * ZOOM / 2, INK)
    return sheet


def main() -> None:
    """Print the wrong labels for each size, and the labels that differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", default="pretrained")
    parser.add_argument("--count", type=int, default=2_000)
    options = parser.parse_args()
    recognizer = load(options.run)
    generator = np.random.default_rng(5)
    labels = np.arange(options.count) % len(FORMS)
    inputs: dict[int, list[mnist_format.Ink]] = {side: [] for side in SIDES}
    for label in labels.tolist():
        sheet = draw(FORMS[label][generator.integers(len(FORMS[label]))], generator)
        for side, images in inputs.items():
            reduced = sheet.resize((side, side), Image.Resampling.BOX)
            images.append(mnist_format.from_image(reduced))
    read = {}
    for side, images in inputs.items():
        batches = normalize(torch.from_numpy(np.stack(images))).split(200)
        probabilities = torch.cat([recognizer.probabilities(batch) for batch in batches]).numpy()
        read[side] = probabilities.argmax(axis=1)
        print(f"{side} pixels: {(read[side] != labels).sum():,} of {options.count:,} wrong")
    first, second = read.values()
    print(f"{(first != second).sum():,} labels differ")


if __name__ == "__main__":
    main()
