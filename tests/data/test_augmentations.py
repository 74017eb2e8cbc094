"""Augmentations change images within their limits, and depend only on the seed."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mnist_lightning.data.augmentations import (
    Augmentation,
    Cutout,
    Deformation,
    Mixup,
    Noise,
    StrokeWidth,
)
from mnist_lightning.data.loader import BatchDataset, BatchLoader
from mnist_lightning.preprocessing.normalization import PAPER, STD

NO_CHANGE = {"degrees": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def digits(count: int = 64) -> Tensor:
    """Return smooth blobs outside the center, on paper."""
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    blot = torch.exp(-((rows - 9) ** 2 / 8 + (columns - 16) ** 2 / 8))
    return (PAPER + 3 * blot).expand(count, 1, 28, 28).clone()


def centers(images: Tensor) -> Tensor:
    """Return the centers of mass (B, 2) as (row, column), in pixels."""
    ink = (images - PAPER)[:, 0]
    mass, positions = ink.sum((1, 2)), torch.arange(28.0)
    return torch.stack([ink.sum(2) @ positions / mass, ink.sum(1) @ positions / mass], dim=1)


def test_a_deformation_of_zero_changes_nothing() -> None:
    images = digits()
    assert torch.allclose(Deformation(**NO_CHANGE)(images, generator()), images, atol=1e-5)


def test_an_image_is_shifted_by_at_most_the_given_pixels() -> None:
    images = digits(2000)
    moved = Deformation(**{**NO_CHANGE, "shift": 3.0})(images, generator())
    shifts = centers(moved) - centers(images)
    assert 2.9 < shifts.abs().max() < 3.01
    assert shifts.mean(dim=0).abs().max() < 0.15


def test_an_image_is_rotated_about_its_middle_by_up_to_the_angle() -> None:
    images = digits(2000)
    rotated = centers(Deformation(**{**NO_CHANGE, "degrees": 30.0})(images, generator())) - 13.5
    before = centers(images) - 13.5
    assert torch.allclose(rotated.norm(dim=1), before.norm(dim=1), atol=0.05)
    angles = torch.atan2(rotated[:, 0], rotated[:, 1]) - torch.atan2(before[:, 0], before[:, 1])
    assert math.radians(29.5) < angles.abs().max() < math.radians(30.2)


def test_an_image_is_scaled_by_up_to_the_factor() -> None:
    images = digits(2000)
    scaled = Deformation(**{**NO_CHANGE, "scale": 0.2})(images, generator())
    areas = (scaled - PAPER).sum((1, 2, 3)) / (images - PAPER).sum((1, 2, 3))
    assert 1.4 < areas.max() < 1.45
    assert 0.63 < areas.min() < 0.66


def test_a_shear_shifts_rows_in_proportion_to_their_height() -> None:
    images = digits(2000)
    slanted = centers(Deformation(**{**NO_CHANGE, "shear": 20.0})(images, generator()))
    moved = slanted - centers(images)
    assert moved[:, 0].abs().max() < 0.05
    height = abs(float(centers(images)[0, 0]) - 13.5)
    furthest = float(moved[:, 1].abs().max())
    assert furthest == pytest.approx(height * math.tan(math.radians(20)), rel=0.03)


def test_a_stretch_changes_the_aspect_up_to_its_factor_and_keeps_the_area() -> None:
    images = digits(2000)
    stretched = Deformation(**NO_CHANGE, stretch=0.5)(images, generator())
    before, after = centers(images) - 13.5, centers(stretched) - 13.5
    ratios = (after[:, 1] / before[:, 1]) / (after[:, 0] / before[:, 0])
    assert 1.45 < ratios.max() < 1.52
    assert 1 / 1.52 < ratios.min() < 1 / 1.45
    areas = (stretched - PAPER).sum((1, 2, 3)) / (images - PAPER).sum((1, 2, 3))
    assert torch.allclose(areas, torch.ones(2000), atol=0.03)


def test_a_warp_moves_points_by_its_standard_deviation() -> None:
    moved = Deformation(**NO_CHANGE, warp=1.5)._displacements(500, generator()) * 14
    assert float(moved.std()) == pytest.approx(1.5, rel=0.03)
    assert (moved[:, 1:] - moved[:, :-1]).std() < 0.5  # neighbors move together


def test_an_image_without_ink_is_unchanged() -> None:
    images = torch.full((8, 1, 28, 28), PAPER)
    warped = Deformation(shift=9.0, warp=2.0)(images, generator())
    assert torch.allclose(warped, images, atol=1e-6)


def test_augmentation_depends_only_on_seed_epoch_and_batch() -> None:
    pixels = torch.randint(0, 256, (50, 28, 28), dtype=torch.uint8, generator=generator())
    labels = torch.arange(50)

    def batches(seed: int, epoch: int, workers: int = 0, resumed: int = 0) -> list[Tensor]:
        augment = [Deformation(warp=1.0)]
        loader = BatchLoader(BatchDataset(pixels, labels, 10, seed, augment), workers)
        loader.sampler.set_epoch(epoch)
        loader.load_state_dict({"epoch": epoch, "given": resumed})
        torch.rand(3)  # the global generator has no effect
        batches_of_epoch = [images for images, _ in loader]
        loader.close()
        return batches_of_epoch

    def same(some: list[Tensor], others: list[Tensor]) -> list[bool]:
        return [torch.equal(*pair) for pair in zip(some, others, strict=True)]

    one = batches(1, 4)
    assert len(one) == 5
    assert same(one, batches(1, 4)) == [True] * 5
    assert same(one, batches(1, 4, workers=2)) == [True] * 5
    assert same(one[3:], batches(1, 4, resumed=3)) == [True] * 2
    assert same(one, batches(1, 5)) == [False] * 5
    assert same(one, batches(2, 4)) == [False] * 5


def test_images_are_augmented_in_training_only() -> None:
    pixels = torch.randint(0, 256, (10, 28, 28), dtype=torch.uint8, generator=generator())
    augment = [Deformation()]
    in_order = BatchDataset(pixels, torch.arange(10), 10, None, augment)[0, 0][0]
    assert torch.equal(in_order, BatchDataset(pixels, torch.arange(10), 10, None)[0, 0][0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"degrees": -1.0}, "degrees: invalid value -1.0"),
        ({"scale": 1.0}, "scale 1.0, shear"),
        ({"smoothness": 0.0}, "smoothness: invalid value 0.0"),
    ],
)
def test_invalid_arguments_are_rejected(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Deformation(**arguments)


def bars(count: int = 2000) -> Tensor:
    """Return bars of full ink, 4 pixels wide."""
    images = torch.full((count, 1, 28, 28), PAPER)
    images[:, :, 6:22, 12:16] = PAPER + 1
    return images


def test_stroke_widths_change_by_at_most_the_given_pixels_per_side() -> None:
    changed = StrokeWidth(thinner=1.5, thicker=2.0)(bars(), generator())
    widths = (changed[:, 0, 14] - PAPER).sum(dim=1)
    assert 7.95 < widths.max() <= 8.001
    assert 0.999 <= widths.min() < 1.1
    share = float((widths > 4).float().mean())
    assert share == pytest.approx(2 / 3.5, abs=0.04)
    assert (changed[:, 0, 0] == PAPER).all()


def test_strokes_may_only_become_thicker_or_stay_equal() -> None:
    widths = (StrokeWidth(0, 0.5)(bars(), generator())[:, 0, 14] - PAPER).sum(dim=1)
    assert 4 <= widths.min() < 4.01
    assert 4.99 < widths.max() <= 5.001
    assert torch.equal(StrokeWidth(0, 0)(bars(3), generator()), bars(3))


def test_noise_has_up_to_its_standard_deviation_of_ink() -> None:
    images = torch.full((500, 1, 28, 28), PAPER)
    noisy = Noise(std=0.2)(images, generator())
    deviations = noisy.std(dim=(1, 2, 3)) * STD
    assert deviations.min() < 0.01
    assert 0.19 < deviations.max() < 0.22


def test_a_square_of_some_images_is_covered_with_paper() -> None:
    images = torch.full((2000, 1, 28, 28), PAPER + 1)
    covered = (Cutout(size=8, share=0.5)(images, generator())[:, 0] == PAPER).float()
    holes = covered[covered.any(dim=1).any(dim=1)]
    assert len(holes) == pytest.approx(1000, abs=80)
    areas = holes.sum(dim=(1, 2))
    assert areas.max() == 64
    assert areas.min() >= 16  # the center is in the image
    sides = holes.amax(dim=1).sum(dim=1)
    assert torch.equal(sides * holes.amax(dim=2).sum(dim=1), areas)
    assert sides.max() == 8
    assert covered.mean(dim=0).min() > 0  # any pixel can be covered


def test_images_and_targets_are_mixed_with_the_same_weights() -> None:
    classes = torch.arange(2000) % 10
    targets = functional.one_hot(classes, 10).float()
    images = classes.float().view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    mixed, mixed_targets = Mixup(alpha=0.4).mix(images, targets, generator())
    # Each image has the value of its class, so that images and targets have the same mean.
    torch.testing.assert_close(mixed[:, 0, 0, 0], mixed_targets @ torch.arange(10.0))
    torch.testing.assert_close(mixed_targets.sum(dim=1), torch.ones(2000))
    largest = mixed_targets.amax(dim=1)
    # The larger share of Beta(0.4, 0.4) has the mean 0.8397; a tenth of the pairs have one class.
    assert float(largest.mean()) == pytest.approx(0.9 * 0.8397 + 0.1, abs=0.01)
    own_share = mixed_targets.gather(1, classes[:, None]).mean()
    assert float(own_share) == pytest.approx(0.55, abs=0.02)


@pytest.mark.parametrize("augmentation", [StrokeWidth(), Noise(), Cutout(), Mixup()])
def test_the_result_depends_on_the_generator_and_the_input_is_unchanged(
    augmentation: Augmentation,
) -> None:
    images = torch.rand(20, 1, 28, 28, generator=generator())
    before = images.clone()
    first = augmentation(images, generator(1))
    assert torch.equal(first, augmentation(images, generator(1)))
    assert not torch.equal(first, augmentation(images, generator(2)))
    assert torch.equal(images, before)


def test_negative_strengths_are_rejected() -> None:
    with pytest.raises(ValueError, match="thinner: invalid value -1; expected 0 to 28"):
        StrokeWidth(thinner=-1)
    with pytest.raises(ValueError, match="std: invalid value -1; expected at least 0"):
        Noise(std=-1)
    with pytest.raises(ValueError, match="size 0, share"):
        Cutout(size=0)
    with pytest.raises(ValueError, match="alpha: invalid value 0; expected more than 0"):
        Mixup(alpha=0)
