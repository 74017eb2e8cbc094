"""Count how often a run's network reads an image that is not a digit as one, with confidence.

    python benchmarks/non_digits.py RUN… [--png FILE]

The images are of kinds and typefaces that no training uses: letters of four alphabets and signs in
typefaces that matplotlib includes, shapes, scribbles, dots and pairs of letters. Letters that look
like a digit are counted apart.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mnist_lightning import load

TYPEFACES = ("DejaVuSans", "DejaVuSerif-Italic", "cmti10", "DejaVuSansMono-Bold")
LETTERS = "ACDEFHKMNPRTUVWXYadefhkmnprtuvwxy?&@#%+="
LIKE_DIGITS = "OQIlSZBbgqszoi|"
OTHER_ALPHABETS = "ΔΣΩΨΞΠθλμπφψωЖДЩЮЯФЫЭШאבגםשصكمن"
SIDE = 220


def _draw_text(text: str, typeface: str, size: int = 120) -> Image.Image:
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{typeface}.ttf")
    image = Image.new("L", (SIDE, SIDE), 255)
    font = ImageFont.truetype(str(path), size)
    ImageDraw.Draw(image).text((SIDE / 2, SIDE / 2), text, 0, font, "mm")
    return image


def letters() -> Iterator[Image.Image]:
    """Yield Latin letters and signs in each typeface."""
    yield from (_draw_text(letter, typeface) for typeface in TYPEFACES for letter in LETTERS)


def letters_like_digits() -> Iterator[Image.Image]:
    """Yield letters that resemble a digit, in each typeface."""
    yield from (_draw_text(letter, typeface) for typeface in TYPEFACES for letter in LIKE_DIGITS)


def other_alphabets() -> Iterator[Image.Image]:
    """Yield Greek, Cyrillic, Hebrew and Arabic letters."""
    yield from (_draw_text(letter, "DejaVuSans") for letter in OTHER_ALPHABETS)


def pairs_of_letters() -> Iterator[Image.Image]:
    """Yield two joined letters, such as `ab`."""
    generator = np.random.default_rng(4)
    for _ in range(40):
        pair = "".join(generator.choice(list(LETTERS), 2))
        yield _draw_text(pair, "DejaVuSans", 100)


def shapes() -> Iterator[Image.Image]:
    """Yield rectangles, triangles, crosses, faces, filled shapes, arrows, houses and hearts."""
    generator = np.random.default_rng(1)
    for index in range(64):
        image = Image.new("L", (SIDE, SIDE), 255)
        pen, width = ImageDraw.Draw(image), int(generator.integers(6, 16))
        left, top = generator.uniform(40, 90, 2)
        right, bottom = generator.uniform(130, 180, 2)
        middle = (left + right) / 2
        triangle = [(left, bottom), (right, bottom), (middle, top)]
        if index % 8 == 0:
            pen.rectangle((left, top, right, bottom), outline=0, width=width)
        elif index % 8 == 1:
            pen.polygon(triangle, outline=0, width=width)
        elif index % 8 == 2:
            pen.line([(left, top), (right, bottom)], 0, width)
            pen.line([(left, bottom), (right, top)], 0, width)
        elif index % 8 == 3:
            pen.ellipse((30, 30, 190, 190), outline=0, width=width)
            pen.ellipse((80, 80, 100, 100), fill=0)
            pen.ellipse((120, 80, 140, 100), fill=0)
            pen.arc((70, 90, 150, 160), 20, 160, 0, width)
        elif index % 8 == 4:
            pen.rectangle((left, top, right, bottom), fill=0)
        elif index % 8 == 5:
            pen.line([(left, bottom), (right, top)], 0, width)
            pen.line([(right - 45, top), (right, top), (right, top + 45)], 0, width)
        elif index % 8 == 6:
            pen.rectangle((left, top + 40, right, bottom + 20), outline=0, width=width)
            pen.line([(left - 8, top + 40), (middle, top - 20), (right + 8, top + 40)], 0, width)
        else:
            pen.ellipse((left, top, middle, top + 50), fill=0)
            pen.ellipse((middle, top, right, top + 50), fill=0)
            pen.polygon([(left + 3, top + 35), (right - 3, top + 35), (middle, bottom)], fill=0)
        yield image


def scribbles() -> Iterator[Image.Image]:
    """Yield lines between few and between many random points, hatchings and spirals."""
    generator = np.random.default_rng(0)
    for index in range(96):
        count = int(generator.integers(5, 9) if index % 2 else generator.integers(15, 40))
        points = generator.uniform(40, 180, (count, 2))
        if index % 8 == 2:
            steps = np.linspace(0, 1, count := count // 3)
            points = np.stack([40 + 140 * steps, 50 + 120 * (np.arange(count) % 2)], axis=1)
        elif index % 8 == 6:
            angles = 2 * math.pi * generator.uniform(2.5, 4) * np.linspace(0, 1, 90)
            directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
            points = 110 + np.linspace(5, 75, 90)[:, None] * directions
        image = Image.new("L", (SIDE, SIDE), 255)
        line = [(x, y) for x, y in points.tolist()]
        ImageDraw.Draw(image).line(line, 0, int(generator.integers(6, 16)), "curve")
        yield image


def dots() -> Iterator[Image.Image]:
    """Yield a filled circle, and a short stroke, of several sizes."""
    for size in (8, 12, 18, 26, 40, 70, 120):
        for stretch in (1, 1.3):
            image = Image.new("L", (SIDE, SIDE), 255)
            box = (
                100 - size / 2,
                100 - stretch * size / 2,
                100 + size / 2,
                100 + stretch * size / 2,
            )
            ImageDraw.Draw(image).ellipse(box, fill=0)
            yield image


KINDS: list[Callable[[], Iterator[Image.Image]]] = [
    *(letters, other_alphabets, pairs_of_letters, shapes, scribbles, dots, letters_like_digits)
]


def main() -> None:
    """Print the number of confident readings of each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    options = parser.parse_args()
    for run in options.runs:
        recognizer = load(run)
        print(run)
        confident = total = 0
        for kind in KINDS:
            readings = [recognizer.read(image) for image in kind()]
            wrong = sum(any(not digit.unsure for digit in digits) for digits in readings)
            print(f"  {kind.__name__.replace('_', ' '):20} {wrong:3} of {len(readings)}")
            if kind is not letters_like_digits:
                confident, total = confident + wrong, total + len(readings)
        print(f"  without the last row {confident:3} of {total} = {100 * confident / total:.1f} %")


if __name__ == "__main__":
    main()
