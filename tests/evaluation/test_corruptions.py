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
    images = corrupt(BY_NAME["rotation"], bars(20), 20)
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


def test_shear_shifts_rows_in_both_directions() -> None:
    left, right = corrupt(BY_NAME["shear"], bars(2), 30)
    assert abs(left.astype(int) - right[:, ::-1]).max() <= 1
    rows = right[[8, 19]].astype(float)
    centers = rows @ np.arange(28) / rows.sum(axis=1)
    assert abs(centers[1] - centers[0]) == pytest.approx(11 * np.tan(np.radians(30)), rel=0.03)


def test_an_outline_has_no_inside() -> None:
    outline = corrupt(BY_NAME["outline"], bars(1), 1)[0]
    assert outline[7:21, 13:15].max() == 0
    assert (outline[6:22, [12, 15]] == 200).all()
    assert corrupt(BY_NAME["outline"], bars(1), 0.4)[0, 14, 13] == 120


def test_impulses_are_ink_or_paper() -> None:
    gray = np.full((50, 28, 28), 100, np.uint8)
    noisy = corrupt(BY_NAME["impulse noise"], gray, 0.2)
    assert set(np.unique(noisy)) == {0, 100, 255}
    assert (noisy != 100).mean() == pytest.approx(0.2, abs=0.01)
    assert (noisy == 255).mean() == pytest.approx(0.1, abs=0.01)


def test_brightness_is_added_and_clipped() -> None:
    assert np.unique(corrupt(BY_NAME["brightness"], bars(), 0.4)).tolist() == [102, 255]


def test_fog_is_uneven_and_never_hides_the_ink_completely() -> None:
    foggy = corrupt(BY_NAME["fog"], np.zeros((20, 28, 28), np.uint8), 1.5)
    assert foggy.min() == 0
    assert foggy.max() == 153  # 255 * 1.5 / 2.5
    assert foggy.std(axis=(1, 2)).min() > 10
    with_ink = corrupt(BY_NAME["fog"], bars(20), 1.5)
    assert (with_ink.astype(int) - foggy)[:, 14, 14].tolist() == [80] * 20  # 200 / 2.5


def test_lines_are_drawn_with_ink() -> None:
    for number in (1, 5):
        drawn = corrupt(BY_NAME["lines"], np.zeros((50, 28, 28), np.uint8), number)
        assert drawn.any(axis=(1, 2)).all()
        ink = drawn.sum(axis=(1, 2)) / 255
        assert 10 < ink.mean() < 35 * number
        assert (corrupt(BY_NAME["lines"], bars(50), number)[:, 6:22, 12:16] >= 200).all()


def test_a_stripe_is_inverted() -> None:
    paper = np.zeros((30, 28, 28), np.uint8)
    striped = corrupt(BY_NAME["inverted stripe"], paper, 6)
    assert ((striped == 255).sum(axis=(1, 2)) == 6 * 28).all()
    columns = striped[1::2].all(axis=1).sum(axis=1)
    rows = striped[0::2].all(axis=2).sum(axis=1)
    assert columns.tolist() == rows.tolist() == [6] * 15


def test_motion_blur_spreads_ink_in_one_direction() -> None:
    dots = np.zeros((40, 28, 28), np.uint8)
    dots[:, 13:15, 13:15] = 255
    blurred = corrupt(BY_NAME["motion blur"], dots, 9).astype(float)
    assert blurred.sum(axis=(1, 2)) == pytest.approx(4 * 255, rel=0.15)
    rows, columns = np.nonzero(blurred.sum(axis=0) > 0)
    assert np.ptp(rows) <= 14
    assert np.ptp(columns) <= 14
    for image in blurred:
        weights = image[image > 20]
        points = np.argwhere(image > 20) - np.average(np.argwhere(image > 20), 0, weights)
        spread = np.linalg.eigvalsh(np.cov(points.T, aweights=weights))
        assert spread[1] > 4 * spread[0]


def test_coarse_pixels_are_averages() -> None:
    coarse = corrupt(BY_NAME["pixelation"], bars(1), 2)[0]
    blocks = coarse.reshape(14, 2, 14, 2)
    assert np.ptp(blocks, axis=(1, 3)).max() == 0
    assert np.array_equal(coarse, bars(1)[0])  # its edges lie between the blocks
    assert corrupt(BY_NAME["pixelation"], bars(1), 8)[0].max() == 100
