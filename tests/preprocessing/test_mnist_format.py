"""The conversion of ink to MNIST's format."""

from pathlib import Path

import numpy as np
import pytest

from mnist_lightning.preprocessing import mnist_format, normalization


def blob(height: int, width: int) -> mnist_format.Ink:
    ink = np.zeros((60, 70), dtype=np.uint8)
    ink[10 : 10 + height, 20 : 20 + width] = 200
    return ink


def test_crop_returns_exactly_the_ink() -> None:
    assert mnist_format.crop_to_ink(blob(8, 5)).shape == (8, 5)


def test_crop_of_a_blank_page_is_refused() -> None:
    with pytest.raises(ValueError, match="no ink"):
        mnist_format.crop_to_ink(blob(0, 0))


@pytest.mark.parametrize(("height", "width"), [(40, 10), (10, 40), (8, 8), (3, 2), (60, 1)])
def test_ink_fills_the_box_with_its_aspect_ratio(height: int, width: int) -> None:
    fitted = mnist_format.fit_to_box(np.full((height, width), 255, dtype=np.uint8))
    longer, shorter = max(fitted.shape), min(fitted.shape)
    assert longer == mnist_format.BOX
    assert abs(shorter - mnist_format.BOX * min(height, width) / max(height, width)) <= 1


def test_reduction_averages_by_area() -> None:
    checkers = (np.indices((40, 40)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.all(np.abs(mnist_format.fit_to_box(checkers).astype(int) - 127.5) <= 1)


@pytest.mark.parametrize("seed", range(5))
def test_center_of_mass_is_at_index_14(seed: int) -> None:
    ink = np.random.default_rng(seed).integers(0, 256, (20, 12)).astype(np.uint8)
    digit = mnist_format.from_ink_unstretched(ink)
    assert digit.shape == (28, 28)
    rows, columns = np.indices(digit.shape)
    for axis in (rows, columns):
        assert abs((axis * digit.astype(float)).sum() / digit.sum() - 14) <= 0.5


@pytest.mark.mnist
def test_constants_are_those_of_the_training_images(mnist_dir: Path) -> None:
    from mnist_lightning.data import mnist_download

    pixels = mnist_download.load(mnist_dir)[0].double() / 255
    assert pixels.mean().item() == pytest.approx(normalization.MEAN, abs=5e-5)
    assert pixels.std().item() == pytest.approx(normalization.STD, abs=5e-5)
