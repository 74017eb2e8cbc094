"""Images that are not digits, and how well a network distinguishes them from digits.

No training uses these images: letters of several alphabets and signs in typefaces that matplotlib
includes, shapes, scribbles and dots. `NoDigit` and the calibration use similar ones, drawn by
`synthetic`.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mnist_lightning.data import idx
from mnist_lightning.data.datasets import NOT_DIGITS, SOURCES
from mnist_lightning.errors import UserError
from mnist_lightning.evaluation.metrics import Floats
from mnist_lightning.preprocessing import mnist_format

TYPEFACES = ("DejaVuSans", "DejaVuSerif-Italic", "cmti10", "DejaVuSansMono-Bold")
LETTERS = "ACDEFHKMNPRTUVWXYadefhkmnprtuvwxy?&@#%+="
LIKE_DIGITS = "OQIlSZBbgqszoi|"
OTHER_ALPHABETS = "ΔΣΩΨΞПθλμπφψωЖДЩЮЯФЫЭШאבגםשصكمن"
SIDE = 220
MAX_IMAGES = 2000  # of a data set on disk
SIMILAR = "letters like digits"
RECALL = 0.95  # share of the digits that are accepted


class Detection(NamedTuple):
    """How well one kind of image is distinguished from digits.

    Attributes:
        kind: of image.
        images: their number.
        auroc: the probability that a random digit has a higher score than a random image of this
            kind (area under the receiver operating characteristic).
        accepted: the share of these images that are accepted by the limit that accepts 95 % of
            the digits (the false-positive rate at 95 % recall).
    """

    kind: str
    images: int
    auroc: float
    accepted: float


def detect(kind: str, digits: Floats, others: Floats) -> Detection:
    """Compare the scores (N,) of digits with those (M,) of other images; digits score higher."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([digits, others]))[: len(digits)].sum()
    pairs = len(digits) * len(others)
    auroc = (ranks - len(digits) * (len(digits) + 1) / 2) / pairs
    accepted = others >= np.quantile(digits, 1 - RECALL)
    return Detection(kind, len(others), float(auroc), float(accepted.mean()))


def read_other_data(data_dir: Path) -> dict[str, NDArray[np.uint8]]:
    """Return test images of clothing, Japanese characters and letters, if they are on disk.

    Damaged files are ignored, as missing ones.
    """
    images: dict[str, NDArray[np.uint8]] = {}
    for name in NOT_DIGITS:
        with suppress(OSError, UserError):
            images[name] = SOURCES[name].load(data_dir).test_images[:MAX_IMAGES].numpy()
    folder = data_dir / "EMNIST" / "raw"
    with suppress(OSError, ValueError):
        letters = idx.read_images(folder / "emnist-letters-test-images-idx3-ubyte").numpy()
        labels = idx.read_labels(
            folder / "emnist-letters-test-labels-idx1-ubyte", len(letters), classes=27
        ).numpy()
        similar = np.isin(labels, [ord(letter) - ord("a") + 1 for letter in "bgiloqsz"])
        upright = letters.transpose(0, 2, 1)  # its images are stored transposed
        spread = np.random.default_rng(0).permutation(len(letters))
        for name, chosen in (("EMNIST letters", ~similar), (f"EMNIST {SIMILAR}", similar)):
            images[name] = upright[spread[chosen[spread]][:MAX_IMAGES]]
    return {name: part for name, part in images.items() if len(part)}


def draw(kind: str) -> NDArray[np.uint8]:
    """Return all images of a kind in MNIST's format: (N, 28, 28)."""
    return np.stack([mnist_format.from_image(image) for image in KINDS[kind]()])


def _draw_text(text: str, typeface: str, size: int = 120) -> Image.Image:
    import matplotlib as mpl

    path = Path(mpl.get_data_path(), "fonts", "ttf", f"{typeface}.ttf")
    image = Image.new("L", (SIDE, SIDE), 255)
    font = ImageFont.truetype(str(path), size)
    ImageDraw.Draw(image).text((SIDE / 2, SIDE / 2), text, 0, font, "mm")
    return image


def _letters() -> Iterator[Image.Image]:
    yield from (_draw_text(letter, typeface) for typeface in TYPEFACES for letter in LETTERS)


def _letters_like_digits() -> Iterator[Image.Image]:
    yield from (_draw_text(letter, typeface) for typeface in TYPEFACES for letter in LIKE_DIGITS)


def _other_alphabets() -> Iterator[Image.Image]:
    yield from (_draw_text(letter, "DejaVuSans") for letter in OTHER_ALPHABETS)


def _pairs_of_letters() -> Iterator[Image.Image]:
    """Yield two joined letters, such as `ab`."""
    generator = np.random.default_rng(4)
    for _ in range(40):
        pair = "".join(generator.choice(list(LETTERS), 2))
        yield _draw_text(pair, "DejaVuSans", 100)


def _shapes() -> Iterator[Image.Image]:
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


def _scribbles() -> Iterator[Image.Image]:
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


def _dots() -> Iterator[Image.Image]:
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


KINDS: dict[str, Callable[[], Iterator[Image.Image]]] = {
    "letters and signs": _letters,
    "other alphabets": _other_alphabets,
    "pairs of letters": _pairs_of_letters,
    "shapes": _shapes,
    "scribbles": _scribbles,
    "dots": _dots,
    SIMILAR: _letters_like_digits,
}
