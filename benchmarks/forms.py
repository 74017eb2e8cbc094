"""Read generated forms of MNIST digits in random styles, and print the share of correct cells.

    python benchmarks/forms.py --data_dir DATA --forms 200 --run pretrained

A cell is correct if its digit has the right row, column and label; an empty cell must have none.
"""

import argparse
import random
import sys
from pathlib import Path

import numpy as np

import mnist_lightning
from mnist_lightning.data.datasets import SOURCES

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.forms import Style, draw_form


def random_style(rng: random.Random) -> Style:
    """Draw a style: any cells, lines, pens, rotations up to 4 degrees, noise and shadows."""
    width, height = rng.randint(40, 140), rng.randint(40, 140)
    return Style(
        cell=(width, height if rng.random() < 0.5 else width),
        line=rng.choice([1, 2, 3, 5]),
        line_gray=rng.choice([30, 90, 150, 190]),
        pen_gray=rng.choice([20, 70, 120]),
        digit=rng.uniform(0.45, 0.75),
        jitter=rng.uniform(0, 0.12),
        gap=rng.choice([0, 0, 8, 20]),
        degrees=rng.uniform(-4, 4) if rng.random() < 0.8 else 0,
        noise=rng.choice([0, 3, 8]),
        shade=rng.choice([0, 40]),
    )


def main() -> None:
    """Print the number of correct cells, and the forms with most errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--forms", type=int, default=200)
    parser.add_argument("--run", default="pretrained")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = SOURCES["mnist"].load(options.data_dir)
    images, labels = data.train_images.numpy(), data.train_labels.numpy()
    recognizer = mnist_lightning.load(options.run)
    rng = random.Random(options.seed)
    errors, cells = [], 0
    for number in range(options.forms):
        style, rows, columns = random_style(rng), rng.randint(1, 12), rng.randint(3, 10)
        chosen = np.random.default_rng(number).permutation(len(images))[: rows * columns]
        written = np.random.default_rng(number).random(rows * columns) > 0.15
        page, places = draw_form(
            images[chosen] * written[:, None, None], rows, columns, style, number
        )
        expected = {
            (row + 1, column + 1): int(labels[chosen[place]])
            for (row, column), place in np.ndenumerate(places)
            if written[place]
        }
        try:
            read = recognizer.read(page)
            found = {one.digit.cell: one.label for one in read if one.digit.cell is not None}
        except ValueError as error:
            print(f"form {number}: {error}")
            found = {}
        wrong = {cell for cell, _ in expected.items() ^ found.items()}
        errors.append((len(wrong), number, style))
        cells += rows * columns
    total = sum(count for count, *_ in errors)
    print(f"{cells - total:,} of {cells:,} cells correct: {100 * (1 - total / cells):.2f} %")
    for count, number, style in sorted(errors, reverse=True)[:5]:
        print(f"{count} errors in form {number}: {style}")


if __name__ == "__main__":
    main()
