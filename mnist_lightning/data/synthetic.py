"""Draw digits by rule, in shapes that are rare in MNIST.

MNIST was written in the United States: ones without a flag, open fours, sevens without a bar.
Other countries use other shapes. Each form here is a few pen strokes. Each image is a form with
randomly moved points, drawn with a pen of random width. Non-digits are drawn in the same way.
"""

import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mnist_lightning.preprocessing import mnist_format

HEIGHT = 64  # of a form, in pixels
JITTER = 0.035  # standard deviation of the points, relative to the height
PEN_WIDTHS = 0.05, 0.22  # minimum and maximum, relative to the height
POINT = re.compile(r"-?\d+,\d+")
WIDTH_FACTORS = 0.8, 1.25  # minimum and maximum horizontal scaling


# Strokes as points x,y in hundredths of the height. A stroke with `~` is a curve through its
# points, one with `#` is filled; the others are straight lines between them.
FORMS = {
    0: [
        "~ 35,0 8,30 10,75 38,100 66,72 66,26 38,0",
        "~ 60,10 30,0 5,35 12,82 38,100 66,72 62,26 40,6",
        "~ 35,0 8,30 10,75 38,100 66,72 66,26 38,0 | 64,6 8,94",
    ],
    1: [
        "30,0 30,100",
        "0,30 30,0 30,100",
        "5,20 30,0 30,100",
        "0,42 36,0 34,100",
        "5,25 30,0 30,100 | 2,100 58,100",
        "8,38 28,22 34,0 34,100",
        "0,30 30,0 30,100 | 12,100 48,100",
    ],
    2: [
        "~ 5,25 30,0 60,22 35,62 2,98 | 2,100 68,100",
        "~ 5,20 35,0 60,25 20,85 8,98 10,82 40,92 70,100",
    ],
    3: [
        "~ 5,12 35,0 58,22 25,46 | ~ 25,46 62,70 35,100 2,88",
        "5,0 60,0 28,40 | ~ 28,40 62,62 40,98 2,90",
        "~ 5,15 35,0 55,20 30,48 12,46 | ~ 12,46 40,50 58,75 30,100 2,92",
    ],
    4: [
        "20,0 5,55 70,55 | 52,25 50,100",
        "50,100 50,0 2,62 70,62",
        "50,100 52,0 0,42 50,46",
        "35,100 37,0 0,34 42,36",
        "48,0 2,55 66,55 | 48,0 48,100",
        "42,0 4,60 66,60 | 54,38 42,100",
        "~ 40,0 22,35 4,62 | 4,62 66,56 | 52,40 36,100",
        "8,0 6,48 60,48 | 58,0 54,100",
    ],
    5: [
        "62,0 14,0 10,42 | ~ 10,42 50,42 60,75 30,100 0,90",
        "~ 14,5 10,42 50,42 60,75 30,100 0,90 | 14,0 62,0",
    ],
    6: ["~ 50,0 15,35 8,75 30,100 58,80 50,55 12,68"],
    7: ["0,0 60,0 25,100", "0,0 60,0 25,100 | 12,50 62,50", "2,16 4,0 62,0 30,100 | 14,48 60,48"],
    8: [
        "~ 34,45 8,22 33,0 58,22 34,45 5,74 33,100 63,74 34,45",
        "~ 56,12 30,0 10,20 56,72 33,100 6,78 56,12",
    ],
    9: [
        "~ 56,28 30,50 6,28 30,0 56,20 | 58,10 54,100",
        "~ 56,30 30,50 6,28 30,0 56,20 54,70 28,100 4,90",
        "~ 58,8 30,0 8,20 28,44 54,34 | ~ 56,8 58,60 44,96 4,98",
        "~ 56,12 30,0 8,22 30,46 54,30 | ~ 54,6 54,45 52,80 50,100",
    ],
}


# Letters and signs that do not look like digits.
SIGNS = [
    "0,100 35,0 70,100 | 18,60 52,60",
    "70,100 62,38 | ~ 62,50 32,35 5,68 32,100 62,82",
    "~ 60,15 30,0 5,50 30,100 62,85",
    "5,0 5,100 | ~ 5,0 50,10 65,50 50,90 5,100",
    "~ 5,55 60,52 45,22 20,25 5,62 30,100 60,88",
    "60,0 5,0 5,100 60,100 | 5,50 50,50",
    "60,0 5,0 5,100 | 5,48 48,48",
    "~ 55,8 35,0 25,25 25,100 | 5,40 48,40",
    "5,0 5,100 | 60,0 60,100 | 5,50 60,50",
    "5,0 5,100 | ~ 5,62 32,42 55,60 55,100",
    "5,0 5,100 | 60,0 5,55 | 18,45 62,100",
    "5,0 5,100 55,100",
    "0,100 8,0 40,65 72,0 80,100",
    "0,35 0,100 | ~ 0,55 22,38 38,55 38,100 | ~ 38,55 60,38 78,55 78,100",
    "5,100 5,0 60,100 60,0",
    "5,100 5,0 | ~ 5,0 55,8 52,46 5,52",
    "5,100 5,0 | ~ 5,0 52,8 50,44 5,50 | 25,50 60,100",
    "5,35 5,100 | ~ 5,62 25,38 50,40",
    "0,0 75,0 | 38,0 38,100",
    "~ 30,10 30,80 45,100 62,88 | 5,35 58,35",
    "~ 5,0 5,70 32,100 60,70 60,0",
    "0,0 35,100 70,0",
    "0,0 22,100 42,25 62,100 84,0",
    "0,0 70,100 | 70,0 0,100",
    "0,0 35,50 70,0 | 35,50 35,100",
    "5,5 75,5 75,95 5,95 5,5",
    "40,0 85,95 0,95 40,0",
    "0,50 80,50 | 40,10 40,90",
    "0,30 75,30 | 0,65 75,65",
    "0,60 25,95 80,0",
    "20,0 12,100 | 55,0 48,100 | 0,32 72,32 | 0,66 68,66",
    "~ 5,22 30,0 56,22 32,50 30,70 | 30,92 31,100",
    "~ 40,0 5,50 40,100 78,50 40,0 | 26,30 26,38 | 54,30 54,38 | ~ 22,62 40,78 58,62",
    "~ 40,25 15,0 0,30 40,95 80,30 65,0 40,25",
    "40,0 52,36 90,36 60,58 72,98 40,72 10,98 20,58 -8,36 28,36 40,0",
    "~ 62,30 35,22 5,60 30,98 62,60 64,28 | ~ 63,30 62,85 70,98 84,90",
    "~ 62,60 35,50 8,75 30,100 60,80 | 64,0 64,100",
    "~ 8,10 32,0 58,18 58,60 60,100 | ~ 58,50 20,50 8,80 30,100 58,80",
    "~ 0,10 5,75 30,100 55,75 60,10 | ~ 60,60 64,95 80,95",
    "~ 0,5 15,10 30,90 55,50 60,5",
    "~ 0,8 18,0 50,100 70,92 | ~ 70,4 52,8 20,92 0,98",
    "~ 0,5 25,8 28,60 25,98 | ~ 26,40 45,8 62,12",
    "~ 60,10 40,0 5,30 5,70 40,100 70,85",
    "~ 0,10 10,80 30,90 40,30 50,85 75,80 82,10",
    "5,0 5,100 | ~ 5,70 40,45 30,72 12,70 | 30,70 55,100",
    "~ 0,95 30,60 45,15 32,0 22,30 24,80 40,98 60,85",
    "~ 70,100 15,25 30,0 50,20 10,62 15,95 45,98 75,55",
    "~ 20,0 5,18 20,34 36,18 20,0 | 75,0 10,100 | ~ 65,66 50,82 65,98 80,82 65,66",
    "~ 62,55 45,35 30,50 42,68 60,55 | ~ 62,35 64,70 85,60 75,10 30,0 0,50 20,95 70,92",
    "70,10 65,0 5,0 35,48 0,100 70,100 72,88",
    "5,0 60,100 | ~ 30,45 20,80 0,100",
    "~ 15,20 0,60 20,95 40,60 60,95 85,60 68,20",
    "~ 0,0 5,45 40,60 75,45 80,0 | 40,0 40,100",
    "~ 35,25 5,35 5,65 35,75 65,65 65,35 35,25 | 35,0 35,100",
    "0,0 0,80 70,80 70,0 | 35,0 35,80",
    "~ 5,10 40,0 70,50 40,100 5,90 | 20,50 68,50",
    "0,0 0,100 | ~ 0,50 30,48 | ~ 60,0 30,30 30,70 60,100 90,70 90,30 60,0",
    "~ 50,50 60,42 62,60 42,66 34,40 60,22 82,45 72,84 34,92 8,55 30,10",
    "~ 0,50 20,30 40,60 60,35 80,50",
    "~ 0,10 15,0 20,40 10,70 20,100 0,90 | 35,10 35,90",
]


def draw_digits(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return digits in MNIST's format (count, 28, 28) and their labels (count,)."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    images = [_draw(_choose(FORMS[label], generator), generator) for label in labels.tolist()]
    return np.stack(images), labels.astype(np.int64)


def draw_non_digits(count: int, seed: int) -> NDArray[np.uint8]:
    """Return signs, random characters, scribbles, turned digits and spots (count, 28, 28).

    They are in MNIST's format.
    """
    generator = np.random.default_rng(seed)
    kinds = (_sign, _random_character, _scribble, _turned_digit, _random_character, _spot)
    forms = [kinds[index % len(kinds)](generator) for index in range(count)]
    return np.stack([_draw(form, generator) for form in forms])


def _choose(forms: list[str], generator: np.random.Generator) -> str:
    return forms[generator.integers(len(forms))]


def _sign(generator: np.random.Generator) -> str:
    return _choose(SIGNS, generator)


def _stroke(points: NDArray[np.int64], generator: np.random.Generator) -> str:
    """Return a stroke through points (N, 2), half of the time curved."""
    curve = "~ " if generator.random() < 0.5 else ""
    return curve + " ".join(f"{x},{y}" for x, y in points.tolist())


def _scribble(generator: np.random.Generator) -> str:
    """Return a random stroke of 4 to 24 points, mostly of few."""
    count = generator.integers(4, 10) if generator.random() < 0.7 else generator.integers(10, 25)
    return _stroke(generator.integers(0, 101, (count, 2)), generator)


def _random_character(generator: np.random.Generator) -> str:
    """Return two to four strokes between points of a grid: a letter of no alphabet."""
    grid = np.array([(x, y) for x in (0, 35, 70) for y in (0, 33, 67, 100)])
    strokes = []
    for _ in range(generator.integers(2, 5)):
        chosen = generator.choice(len(grid), generator.integers(2, 4), replace=False)
        strokes.append(_stroke(grid[chosen], generator))
    return " | ".join(strokes)


def _turned_digit(generator: np.random.Generator) -> str:
    """Return a digit that is mirrored, or turned by 90 degrees, if the result is no digit."""
    turned = generator.random() < 0.5
    digits = [2, 3, 4, 5, 7] if turned else [3, 4, 7]  # a mirrored 2 resembles a 5
    form = _choose(FORMS[int(generator.choice(digits))], generator)

    def move(point: re.Match[str]) -> str:
        x, y = map(int, point[0].split(","))
        return f"{y},{70 - x}" if turned else f"{70 - x},{y}"

    return POINT.sub(move, form)


def _spot(generator: np.random.Generator) -> str:
    """Return a dot, a patch or a filled polygon."""
    size, sides = generator.integers(1, 60), generator.integers(3, 9)
    angles = np.sort(generator.uniform(0, 2 * np.pi, sides))
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = (60 + size * circle).astype(np.int64)
    return "# " + " ".join(f"{x},{y}" for x, y in points.tolist())


def _draw(form: str, generator: np.random.Generator) -> NDArray[np.uint8]:
    width = generator.uniform(*PEN_WIDTHS) * HEIGHT
    width_factor = generator.uniform(*WIDTH_FACTORS)
    sheet = Image.new("L", (2 * HEIGHT, 2 * HEIGHT))
    pen = ImageDraw.Draw(sheet)
    # A point shared by several strokes is moved only once.
    names = dict.fromkeys(POINT.findall(form))
    positions = {name: _position(name) + JITTER * generator.standard_normal(2) for name in names}
    for stroke in form.split("|"):
        points = np.array([positions[name] for name in POINT.findall(stroke)])
        line = _smooth(points) if "~" in stroke else points
        line = line * (width_factor, 1) * HEIGHT + HEIGHT / 2
        places = [(x, y) for x, y in line.tolist()]
        if "#" in stroke:
            pen.polygon(places, fill=255)
        pen.line(places, 255, round(width), "curve")
        for x, y in line[[0, -1]].tolist():
            pen.circle((x, y), width / 2, 255)
    return mnist_format.from_ink(np.asarray(sheet))


def _position(name: str) -> NDArray[np.float64]:
    return np.array([int(part) / 100 for part in name.split(",")])


def _smooth(points: NDArray[np.float64], steps: int = 8) -> NDArray[np.float64]:
    """Return a smooth curve through points (Catmull and Rom, 1974)."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    before, start, end, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    curve = 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )
    return np.concatenate([curve.transpose(1, 0, 2).reshape(-1, 2), points[-1:]])
