"""Disturbances do to a picture what they are called."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mnist_lightning.evaluation.corruptions import KINDS, Disturbance, disturbed

BY_NAME = {kind.name: kind for kind in KINDS}


def pictures(count: int = 4) -> NDArray[np.uint8]:
    """A bar, 4 wide and 16 high, in the middle of each."""
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 6:22, 12:16] = 200
    return images


def center(image: NDArray[np.uint8]) -> tuple[float, float]:
    rows, columns = np.indices(image.shape)
    return float((rows * image).sum() / image.sum()), float((columns * image).sum() / image.sum())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_changes_more_with_its_strength_and_always_alike(kind: Disturbance) -> None:
    images = pictures(20)
    changes = []
    for strength in kind.strengths:
        changed = disturbed(kind, images, strength)
        assert changed.shape == images.shape
        assert changed.dtype == np.uint8
        assert np.array_equal(changed, disturbed(kind, images, strength))
        changes.append(np.abs(changed.astype(float) - images).mean())
    assert changes == sorted(changes)
    assert changes[0] > 0


def test_rotation_turns_one_way_and_the_other() -> None:
    tall = pictures(2)
    one, other = disturbed(BY_NAME["rotation"], tall, 90)
    assert np.array_equal(one, other)  # a quarter turn of a bar, either way
    assert abs(one.astype(int) - tall[0].T).max() <= 1
    one, other = disturbed(BY_NAME["rotation"], tall, 30)
    assert abs(one.astype(int) - other[:, ::-1]).max() <= 1


def test_shift_moves_by_its_length() -> None:
    for image in disturbed(BY_NAME["shift"], pictures(), 3):
        assert np.hypot(*np.subtract(center(image), center(pictures()[0]))) == pytest.approx(
            3, 0.02
        )


def test_scale_makes_half_of_them_larger() -> None:
    larger, smaller = disturbed(BY_NAME["scale"], pictures(2), 0.25).astype(float)
    ink = pictures()[0].sum()
    assert larger.sum() == pytest.approx(ink * 1.25**2, rel=0.03)
    assert smaller.sum() == pytest.approx(ink / 1.25**2, rel=0.03)


def test_blur_and_shift_lose_no_ink() -> None:
    for name, strength in (("blur", 1.5), ("shift", 2)):
        after = disturbed(BY_NAME[name], pictures(), strength).sum()
        assert after == pytest.approx(float(pictures().sum()), rel=0.02)


def test_contrast_leaves_the_share_that_is_not_lost() -> None:
    assert disturbed(BY_NAME["contrast"], pictures(), 0.75).max() == 50


def test_occlusion_covers_a_square_of_paper() -> None:
    full = np.full((30, 28, 28), 255, np.uint8)
    for image in disturbed(BY_NAME["occlusion"], full, 6):
        rows, columns = np.nonzero(image == 0)
        assert len(rows) == 36
        assert np.ptp(rows) == np.ptp(columns) == 5


def test_strokes_grow_and_shrink_by_pixels() -> None:
    width = {
        (name, strength): (disturbed(BY_NAME[name], pictures(1), strength)[0, 14] / 200).sum()
        for name, strength in (
            ("thicker strokes", 1),
            ("thicker strokes", 2.5),
            ("thinner strokes", 1),
            ("thinner strokes", 0.5),
        )
    }
    assert list(width.values()) == pytest.approx([6, 9, 2, 3])
