"""How often a run's network is sure of what is no digit.

    python benchmarks/no_digits.py RUN…

Letters and signs in typefaces that come with matplotlib, shapes, and scribbles.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mnist_lightning import load

TYPEFACES = ("DejaVuSans", "DejaVuSerif-Italic", "cmti10", "DejaVuSansMono-Bold")
# None that may pass for a digit, such as O, I, Z, S, B, b, g and q.
LETTERS = "ACDEFHKMNPRTUVWXYadefhkmnprtuvwxy?&@#%+="
SIDE = 220


def letters() -> Iterator[Image.Image]:
    """Each letter and sign in each typeface."""
    for typeface in TYPEFACES:
        file = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{typeface}.ttf")
        font = ImageFont.truetype(str(file), 120)
        for letter in LETTERS:
            sheet = Image.new("L", (SIDE, SIDE), 255)
            ImageDraw.Draw(sheet).text((50, 40), letter, font=font, fill=0)
            yield sheet


def shapes() -> Iterator[Image.Image]:
    """Boxes, triangles, crosses, faces and blocks."""
    generator = np.random.default_rng(1)
    for index in range(40):
        sheet = Image.new("L", (SIDE, SIDE), 255)
        pen, width = ImageDraw.Draw(sheet), int(generator.integers(6, 16))
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
        yield sheet


def scribbles() -> Iterator[Image.Image]:
    """Lines there and back."""
    generator = np.random.default_rng(0)
    for _ in range(60):
        sheet = Image.new("L", (SIDE, SIDE), 255)
        points = generator.uniform(40, 180, (int(generator.integers(5, 9)), 2)).tolist()
        line = [(across, down) for across, down in points]
        ImageDraw.Draw(sheet).line(line, 0, int(generator.integers(6, 16)), "curve")
        yield sheet


def main() -> None:
    """Print a line a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    asked = parser.parse_args()
    for run in asked.runs:
        recognizer = load(run)
        parts = []
        for pictures in (letters, shapes, scribbles):
            read = [recognizer.read(picture, multiple=False)[0] for picture in pictures()]
            sure = sum(not reading.unsure for reading in read)
            parts.append(f"{sure} of {len(read)} {pictures.__name__}")
        print(f"{run}: sure of {', '.join(parts)}")


if __name__ == "__main__":
    main()
