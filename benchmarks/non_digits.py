"""Count how often a run's network is confident about an image that is not a digit.

    python benchmarks/non_digits.py RUN…

The images are letters and signs in typefaces that matplotlib includes, shapes, and scribbles.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mnist_lightning import load

TYPEFACES = ("DejaVuSans", "DejaVuSerif-Italic", "cmti10", "DejaVuSansMono-Bold")
# Without those that resemble a digit, such as O, I, Z, S, B, b, g and q.
LETTERS = "ACDEFHKMNPRTUVWXYadefhkmnprtuvwxy?&@#%+="
SIDE = 220


def letters() -> Iterator[Image.Image]:
    """Yield each letter and sign in each typeface."""
    for typeface in TYPEFACES:
        path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{typeface}.ttf")
        font = ImageFont.truetype(str(path), 120)
        for letter in LETTERS:
            image = Image.new("L", (SIDE, SIDE), 255)
            ImageDraw.Draw(image).text((50, 40), letter, font=font, fill=0)
            yield image


def shapes() -> Iterator[Image.Image]:
    """Yield rectangles, triangles, crosses, faces and filled rectangles."""
    generator = np.random.default_rng(1)
    for index in range(40):
        image = Image.new("L", (SIDE, SIDE), 255)
        pen, width = ImageDraw.Draw(image), int(generator.integers(6, 16))
        left, top = generator.uniform(40, 90, 2)
        right, bottom = generator.uniform(130, 180, 2)
        if index % 5 == 0:
            pen.rectangle((left, top, right, bottom), outline=0, width=width)
        elif index % 5 == 1:
            pen.polygon([(left, bottom), (right, bottom), (110, top)], outline=0, width=width)
        elif index % 5 == 2:
            pen.line([(left, top), (right, bottom)], 0, width)
            pen.line([(left, bottom), (right, top)], 0, width)
        elif index % 5 == 3:
            pen.ellipse((30, 30, 190, 190), outline=0, width=width)
            pen.ellipse((80, 80, 100, 100), fill=0)
            pen.ellipse((120, 80, 140, 100), fill=0)
            pen.arc((70, 90, 150, 160), 20, 160, 0, width)
        else:
            pen.rectangle((left, top, right, bottom), fill=0)
        yield image


def scribbles() -> Iterator[Image.Image]:
    """Yield lines between random points."""
    generator = np.random.default_rng(0)
    for _ in range(60):
        image = Image.new("L", (SIDE, SIDE), 255)
        points = generator.uniform(40, 180, (int(generator.integers(5, 9)), 2)).tolist()
        line = [(x, y) for x, y in points]
        ImageDraw.Draw(image).line(line, 0, int(generator.integers(6, 16)), "curve")
        yield image


def main() -> None:
    """Print the number of confident predictions of each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    options = parser.parse_args()
    for run in options.runs:
        recognizer = load(run)
        counts = []
        for images in (letters, shapes, scribbles):
            readings = [recognizer.read(image, multiple=False)[0] for image in images()]
            confident = sum(not reading.unsure for reading in readings)
            counts.append(f"{confident} of {len(readings)} {images.__name__}")
        print(f"{run}: confident about {', '.join(counts)}")


if __name__ == "__main__":
    main()
