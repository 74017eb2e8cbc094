"""Each corruption changes images as its name says."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mnist_lightning.evaluation.corruptions import CORRUPTIONS, Corruption, corrupt

BY_NAME = {kind.name: kind for kind in CORRUPTIONS}


def bars(count: int = 4) -> NDArray[np.uint8]:
    """Return images of a bar, 4 wide and 16 high, in the center."""
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 6:22, 12:16] = 200
    return images


def center(image: NDArray[np.uint8]) -> tuple[float, float]:
    rows, columns = np.indices(image.shape)
    return float((rows * image).sum() / image.sum()), float((columns * image).sum() / image.sum())


@pytest.mark.parametrize("kind", CORRUPTIONS, ids=lambda kind: kind.name)
def test_each_changes_more_with_its_strength_and_is_deterministic(kind: Corruption) -> None:
    images = bars(20)
    changes = []
    for strength in kind.strengths:
        corrupted = corrupt(kind, images, strength)
        assert corrupted.shape == images.shape
        assert corrupted.dtype == np.uint8
        assert np.array_equal(corrupted, corrupt(kind, images, strength))
        changes.append(np.abs(corrupted.astype(float) - images).mean())
    assert changes == sorted(changes)
    assert changes[0] > 0


def test_rotation_turns_in_both_directions() -> None:
    tall = bars(2)
    left, right = corrupt(BY_NAME["rotation"], tall, 90)
    assert np.array_equal(left, right)  # a quarter turn of a bar, in either direction
    assert abs(left.astype(int) - tall[0].T).max() <= 1
    left, right = corrupt(BY_NAME["rotation"], tall, 30)
    assert abs(left.astype(int) - right[:, ::-1]).max() <= 1


def test_shift_moves_by_its_length() -> None:
    for image in corrupt(BY_NAME["shift"], bars(), 3):
        assert np.hypot(*np.subtract(center(image), center(bars()[0]))) == pytest.approx(3, 0.02)


def test_scale_enlarges_half_of_the_images() -> None:
    larger, smaller = corrupt(BY_NAME["scale"], bars(2), 0.25).astype(float)
    ink = bars()[0].sum()
    assert larger.sum() == pytest.approx(ink * 1.25**2, rel=0.03)
    assert smaller.sum() == pytest.approx(ink / 1.25**2, rel=0.03)


def test_blur_and_shift_do_not_change_the_amount_of_ink() -> None:
    for name, strength in (("blur", 1.5), ("shift", 2)):
        after = corrupt(BY_NAME[name], bars(), strength).sum()
        assert after == pytest.approx(float(bars().sum()), rel=0.02)


def test_contrast_reduces_the_ink_by_its_strength() -> None:
    assert corrupt(BY_NAME["contrast"], bars(), 0.75).max() == 50


def test_occlusion_covers_a_square_of_paper() -> None:
    full = np.full((30, 28, 28), 255, np.uint8)
    for image in corrupt(BY_NAME["occlusion"], full, 6):
        rows, columns = np.nonzero(image == 0)
        assert len(rows) == 36
        assert np.ptp(rows) == np.ptp(columns) == 5


def test_strokes_grow_and_shrink_by_pixels() -> None:
    width = {
        (name, strength): (corrupt(BY_NAME[name], bars(1), strength)[0, 14] / 200).sum()
        for name, strength in (
            ("thicker strokes", 1),
            ("thicker strokes", 2.5),
            ("thinner strokes", 1),
            ("thinner strokes", 0.5),
        )
    }
    assert list(width.values()) == pytest.approx([6, 9, 2, 3])
