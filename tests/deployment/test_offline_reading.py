"""The JavaScript of a page without a server, run in V8, compared with Python."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps
from py_mini_racer import MiniRacer
from torch import nn

from mnist_lightning.deployment.network_description import describe
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.ink_extraction import upright
from mnist_lightning.preprocessing.normalization import MEAN, STD
from tests.deployment.javascript import assert_equal_digits, evaluate, pass_array
from tests.images import SEVEN, draw_blot, draw_page, draw_seven, scan

pytestmark = pytest.mark.slow


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


@pytest.mark.parametrize("before", [(60, 47), (13, 64), (9, 9)])
@pytest.mark.parametrize("after", [17, 40, 130])
@pytest.mark.parametrize(("name", "method"), [("box", "BOX"), ("bicubic", "BICUBIC")])
def test_images_are_scaled_as_in_pillow(
    engine: MiniRacer, before: tuple[int, int], after: int, name: str, method: str
) -> None:
    array = noise(*before)
    # One pass: Pillow chooses the order of two passes.
    for width, height in ((after, before[0]), (before[1], after)):
        for pixels in (array, array.astype(np.float32)):
            image = Image.fromarray(pixels)
            expected = np.asarray(image.resize((width, height), Image.Resampling[method]))
            result = evaluate(engine, pixels, f'pillow.resize(given, {width}, {height}, "{name}")')
            assert result == pytest.approx(expected, abs=0 if pixels.dtype == np.uint8 else 1e-4)


@pytest.mark.parametrize("radius", [1.25, 2.75, 3.25, 5.75, 8.25])
def test_images_are_blurred_as_in_pillow(engine: MiniRacer, radius: float) -> None:
    for height, width in ((64, 41), (7, 64), (12, 12)):
        array = noise(height, width)
        image = Image.fromarray(array)
        expected = np.asarray(image.filter(ImageFilter.GaussianBlur(radius)))
        assert np.array_equal(
            evaluate(engine, array, f"pillow.gaussianBlur(given, {radius})"), expected
        )
        expected = np.asarray(image.filter(ImageFilter.BoxBlur(1)))
        assert np.array_equal(evaluate(engine, array, "pillow.boxBlur(given, 1)"), expected)


def test_rounding_and_quantiles_equal_numpy(engine: MiniRacer) -> None:
    halves = np.arange(-4, 4.5, 0.25, dtype=np.float32)[None]
    assert np.array_equal(
        evaluate(engine, halves, "arrays.map(given, arrays.rint)"), np.rint(halves)
    )
    values = noise(5, 20).astype(np.float32)
    shares = [0, 0.005, 0.37, 0.5, 0.99, 1]
    pass_array(engine, values, "Float32Array")
    ranked = json.loads(str(engine.eval(f"JSON.stringify(arrays.quantiles(given.data, {shares}))")))
    assert ranked == pytest.approx(np.quantile(values, shares).tolist(), abs=1e-4)


def add_shadow(image: Image.Image) -> Image.Image:
    light = np.linspace(0.4, 1, image.width)
    return Image.fromarray((np.asarray(image.convert("L")) * light).astype(np.uint8))


def make_transparent(image: Image.Image) -> Image.Image:
    ink = image.convert("RGB")
    ink.putalpha(ImageOps.invert(image.convert("L")))
    return ink


def add_ruled_lines(image: Image.Image) -> Image.Image:
    lines = np.array(image.convert("L"))
    for row in range(30, len(lines), 60):
        lines[row : row + 3] = 20
    return Image.fromarray(lines)


IMAGES = {
    "plain": draw_seven(),
    "light ink": ImageOps.invert(draw_seven().convert("L")),
    "in a shadow": add_shadow(draw_seven()),
    "transparent": make_transparent(draw_seven()),
    "ruled": add_ruled_lines(draw_seven()),
    "many on ruled paper": add_ruled_lines(
        draw_page([(x, y) for x in (0, 160, 320) for y in (0, 220)])
    ),
    "small": draw_seven().resize((40, 40)),
    "huge": draw_seven().resize((3400, 3300)),
    "tall": draw_seven().resize((90, 500)),
    "red on green": Image.composite(
        Image.new("RGB", draw_seven().size, (60, 150, 40)),
        Image.new("RGB", draw_seven().size, (220, 70, 60)),
        draw_seven().convert("L"),
    ),
    "on a table": ImageOps.expand(draw_seven().convert("RGB"), 120, (70, 50, 30)),
    "two": draw_page([(0, 20), (250, 0)]),
    "two lines": draw_page([(0, 0), (200, 10), (20, 250)]),
    "blank": Image.new("L", (90, 60), 250),
    "black": Image.new("L", (28, 28)),
    "in MNIST's format": Image.fromarray(mnist_format.from_image(draw_seven())),
    "noise": Image.fromarray(noise(70, 90)),
    "thin": Image.new("L", (300, 1), 3),
    **{
        f"scan of {side}x{side}, {'one bit' if one_bit else 'gray'}": scan(SEVEN, side, one_bit)
        for side in (8, 16, 40)
        for one_bit in (True, False)
    },
    "broken scan": scan(np.where(np.indices((28, 28)).sum(axis=0) % 7, SEVEN, 0), 16, True),
    "blot": draw_blot(),
    "blot in a frame": draw_blot(frame=0),
}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("multiple", [None, True, False])
def test_digits_are_found_as_in_python(engine: MiniRacer, name: str, multiple: bool | None) -> None:
    assert_equal_digits(engine, IMAGES[name], multiple)


@pytest.mark.mnist
def test_photos_give_the_same_pixels(engine: MiniRacer, mnist_dir: Path) -> None:
    paths = sorted(
        path for path in (mnist_dir / "photos").rglob("*") if path.suffix in (".png", ".jpg")
    )
    assert len(paths) == 127
    for path in paths:
        assert_equal_digits(engine, upright(mnist_format.read(path)), multiple=False)


def run_javascript(
    layers: nn.Module, engine: MiniRacer, ink: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Compute the output of layers for (28, 28) ink with the JavaScript of a page."""
    description = describe(layers, exact=True) | {"mean": MEAN, "std": STD}
    pass_array(engine, ink, "Uint8Array")
    logits = engine.eval(
        f"JSON.stringify([...network.load({json.dumps(description)}).logits(given.data)])"
    )
    return np.array(json.loads(str(logits)))


class Added(nn.Module):
    """Additions in place, means, logarithms, and a branch without an effect."""

    def __init__(self) -> None:
        super().__init__()
        self.change = nn.Conv2d(1, 1, 3, padding=1)
        self.shift = torch.full((1, 1, 28, 28), 0.25)  # neither parameter nor buffer

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (B, 1, 28, 28) to (B, 10)."""
        added = nn.functional.relu(self.change(images) + images + self.shift, inplace=True)
        added.flatten(1).sum()
        pooled = nn.functional.leaky_relu(nn.functional.avg_pool2d(added, (6, 7)), 0.1)
        return nn.functional.log_softmax(pooled.reshape(pooled.size(0), -1), dim=1)


class Stacked(nn.Module):
    """Two copies of the images, one above the other."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (B, 1, H, W) to (B, 1, 2 H, W)."""
        return torch.cat([images, images], dim=2)


class Functional(nn.Module):
    """Functional layers, and a view."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 1, 3, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (B, 1, 28, 28) to (B, 324)."""
        features = torch.nn.functional.conv2d(images, self.weight, stride=3)
        return torch.relu(features).view(images.size(0), -1)


LAYERS: dict[str, list[nn.Module]] = {
    "stride": [nn.Conv2d(1, 3, (5, 3), stride=(2, 3), padding=(1, 4))],
    "dilation": [nn.Conv2d(1, 3, 3, dilation=2, bias=False)],
    "groups": [nn.Conv2d(1, 6, 3), nn.Conv2d(6, 12, 3, groups=3)],
    "same": [nn.Conv2d(1, 2, (4, 5), padding="same"), nn.Conv2d(2, 2, 3, padding="valid")],
    "pool": [nn.MaxPool2d((2, 3), stride=(3, 2), padding=(0, 1))],
    "norm": [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.5)],
    "bare norm": [nn.BatchNorm2d(1, affine=False), nn.SiLU()],
    "pad": [nn.ZeroPad2d((1, -2, 3, -4)), nn.ConstantPad2d(2, 1.5)],
    "linear": [nn.Flatten(), nn.Linear(784, 7), nn.SiLU(), nn.Linear(7, 3, bias=False)],
    "functions": [Functional()],
    "added": [Added()],
    "means": [nn.Conv2d(1, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)],
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", LAYERS)
def test_each_step_equals_torch(engine: MiniRacer, name: str) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(*LAYERS[name], nn.Flatten())
    for weight in layers.parameters():  # created during import, before the seed
        nn.init.normal_(weight)
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = torch.randn(layer.num_features)
            layer.running_var = torch.rand(layer.num_features) + 0.1
    layers.eval()
    ink = noise(28, 28)
    scaled = (torch.from_numpy(ink.astype(np.float32)) / 255 - MEAN) / STD
    with torch.no_grad():
        expected = layers(scaled[None, None])[0].numpy()
    assert run_javascript(layers, engine, ink) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("layer", "step"),
    [
        (nn.Softsign(), "abs"),
        (nn.MaxPool2d(2, ceil_mode=True), "max_pool2d with ceil_mode"),
        (nn.MaxPool2d(2, dilation=2), "max_pool2d with dilation"),
        (nn.ReflectionPad2d(1), "pad with mode reflect"),
        (nn.Linear(28, 3), "linear of more than one dimension"),
        (nn.Flatten(2), "flatten except of all dimensions"),
        (Stacked(), "cat"),
        (nn.BatchNorm2d(1, track_running_stats=False), "batch_norm without running"),
        (nn.ConstantPad3d((0, 0, 0, 0, 1, 0), 1.0), "pad except for rows and columns"),
    ],
)
def test_other_steps_are_refused_by_name(engine: MiniRacer, layer: nn.Module, step: str) -> None:
    with pytest.raises(Exception, match=f"no JavaScript for {step}"):
        run_javascript(nn.Sequential(layer, nn.Flatten()), engine, noise(28, 28))
