"""Generated digits and non-digits."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from mnist_lightning.data import augmentations
from mnist_lightning.data.augmentations import NoDigit
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.data.synthetic import FORMS, POINT, SIGNS, draw_digits, draw_non_digits


def test_images_are_in_mnist_s_format_and_depend_only_on_the_seed() -> None:
    pictures, labels = draw_digits(60, seed=3)
    again, _ = draw_digits(60, seed=3)
    other, _ = draw_digits(60, seed=4)
    assert np.array_equal(pictures, again)
    assert not np.array_equal(pictures, other)
    assert np.bincount(labels).tolist() == [6] * 10
    for picture in (*pictures, *draw_non_digits(60, seed=3)):
        assert picture.shape == (28, 28)
        assert picture.max() == 255
        rows, columns = np.nonzero(picture)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20)
        # The center of mass is within half a pixel if the edges allow it.
        if rows.min() > 5 and rows.max() < 27:
            weights = picture[rows, columns].astype(float)
            assert np.average(rows, weights=weights) == pytest.approx(14, abs=0.6)


def test_every_form_consists_of_points_and_operators() -> None:
    for form in [*chain.from_iterable(FORMS.values()), *SIGNS]:
        assert POINT.sub("", form).strip(" ~|") == ""


@pytest.mark.slow
def test_no_test_image_is_in_the_training_set() -> None:
    data = SOURCES["strokes"].load(Path())
    train = {picture.numpy().tobytes() for picture in data.train_images}
    assert not any(picture.numpy().tobytes() in train for picture in data.test_images)


def test_many_augmentations_share_their_non_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    images, targets = torch.zeros(2, 1, 28, 28), torch.eye(10)[:2]
    NoDigit(0.5).mix(images, targets, torch.Generator())
    double, _ = NoDigit(0.5).mix(images.double(), targets, torch.Generator())
    assert double.dtype == torch.float64
    monkeypatch.delattr(augmentations, "draw_non_digits")
    NoDigit(0.5).mix(images, targets, torch.Generator())


def test_non_digits_have_uniform_targets() -> None:
    images, targets = torch.zeros(2000, 1, 28, 28), torch.eye(10).repeat(200, 1)
    generator = torch.Generator().manual_seed(0)
    changed, new_targets = NoDigit(0.2).mix(images, targets, generator)
    replaced = (changed != 0).flatten(1).any(dim=1)
    assert replaced.float().mean() == pytest.approx(0.2, abs=0.03)
    assert torch.equal(new_targets[~replaced], targets[~replaced])
    assert torch.equal(new_targets[replaced], torch.full_like(new_targets[replaced], 0.1))
    # They are normalized like all images.
    assert changed[replaced].amin() == pytest.approx(-0.1307 / 0.3081, abs=1e-6)
    assert changed[replaced].amax() == pytest.approx((1 - 0.1307) / 0.3081, abs=1e-5)
    assert images.abs().sum() == 0
    with pytest.raises(ValueError, match="share: invalid value 1"):
        NoDigit(1)
