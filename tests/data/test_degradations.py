"""Degradations change their share of the images, and only in the way that they describe."""

import pytest
import torch
from torch import Generator, Tensor

from mnist_lightning.data.degradations import (
    Blur,
    Clutter,
    Degradation,
    Lighting,
    LowResolution,
    RandomFilter,
)
from mnist_lightning.preprocessing.normalization import MEAN, STD

ALL = [Lighting, Clutter, Blur, RandomFilter, LowResolution]


def generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def squares(count: int) -> Tensor:
    """Return squares of ink, 8 pixels wide, in the center: (B, 28, 28)."""
    ink = torch.zeros(count, 28, 28)
    ink[:, 10:18, 10:18] = 1
    return ink


def normalized(ink: Tensor) -> Tensor:
    return (ink.unsqueeze(1) - MEAN) / STD


def degraded(degradation: Degradation, ink: Tensor) -> Tensor:
    """Return the degraded ink."""
    return degradation(normalized(ink), generator())[:, 0] * STD + MEAN


@pytest.mark.parametrize("kind", ALL)
def test_only_the_given_share_of_the_images_changes(kind: type[Degradation]) -> None:
    images = normalized(squares(4000))
    before = images.clone()
    changed = kind(share=0.3)(images, generator())
    assert torch.equal(images, before)
    share = (changed != images).flatten(1).any(dim=1).float().mean()
    # A bar may lie on the paper in the color of paper, so that Clutter changes fewer images.
    assert (0.2 if kind is Clutter else 0.27) < share < 0.33
    assert torch.equal(kind(share=0)(images, generator()), images)


@pytest.mark.parametrize("kind", ALL)
def test_the_result_depends_on_the_generator_and_stays_between_paper_and_ink(
    kind: type[Degradation],
) -> None:
    images = normalized(torch.rand(50, 28, 28, generator=generator(9)))
    first = kind(share=1)(images, generator(1))
    assert torch.equal(first, kind(share=1)(images, generator(1)))
    assert not torch.equal(first, kind(share=1)(images, generator(2)))
    ink = first * STD + MEAN
    assert ink.min() > -1e-5
    assert ink.max() < 1 + 1e-5


@pytest.mark.parametrize("kind", ALL)
def test_a_share_outside_of_0_to_1_is_rejected(kind: type[Degradation]) -> None:
    with pytest.raises(ValueError, match=r"share: invalid value 1.5; expected 0 to 1"):
        kind(share=1.5)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (Lighting, {"contrast": 0.0}),
        (Clutter, {"count": 0}),
        (Blur, {"std": -1.0}),
        (RandomFilter, {"size": 4}),
        (LowResolution, {"side": 0.5}),
        (LowResolution, {"one_bit": 2.0}),
    ],
)
def test_invalid_arguments_are_rejected(
    kind: type[Degradation], arguments: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(arguments))}: invalid value"):
        kind(**arguments)


def test_light_leaves_at_least_the_given_contrast() -> None:
    light = degraded(Lighting(1, contrast=0.2), torch.zeros(2000, 28, 28))
    lit = degraded(Lighting(1, contrast=0.2), squares(2000))
    # The same light falls on both. Only the square differs.
    contrast = (lit - light)[:, 14, 14]
    assert 0.199 < contrast.min() < 0.22
    assert 0.98 < contrast.max() <= 1.001
    assert torch.allclose(lit[:, 0], light[:, 0], atol=1e-5)
    corners = light[:, 2, 2]
    assert corners.min() < 0.01
    assert corners.max() > 0.5


def test_bars_that_hide_what_is_below_have_a_limited_area() -> None:
    gray = torch.full((3000, 28, 28), 0.5)  # which an inverted bar does not change
    drawn = (degraded(Clutter(1, count=1), gray) - 0.5).abs()
    assert (drawn > 0.25).sum((1, 2)).max() <= 180
    assert (drawn > 0.01).float().mean(dim=0).min() > 0  # any pixel can be covered
    values = degraded(Clutter(1, count=1), gray).flatten()
    assert values.min() < 0.01
    assert values.max() > 0.99


def test_some_bars_are_inverted_and_wide() -> None:
    noise = torch.rand(500, 28, 28, generator=generator(3))
    changed = degraded(Clutter(1, count=1), noise)
    inverted = ((changed - (1 - noise)).abs() < 1e-5).sum((1, 2))
    assert 0.1 < (inverted > 50).float().mean() < 0.4
    assert inverted.max() > 300


def test_more_bars_cover_more() -> None:
    def covered(count: int) -> float:
        return float(degraded(Clutter(1, count=count), torch.zeros(500, 28, 28)).mean())

    assert covered(1) < covered(3) < covered(9)


def test_blur_keeps_the_ink_and_spreads_it_by_at_most_its_standard_deviation() -> None:
    ink = squares(1000)
    blurred = degraded(Blur(1, std=2.0), ink)
    assert torch.allclose(blurred.sum((1, 2)), ink.sum((1, 2)), rtol=0.01)
    positions = torch.arange(28.0) - 13.5

    def variance(images: Tensor) -> Tensor:
        return images.sum(2) @ positions**2 / images.sum((1, 2))

    added = variance(blurred) - variance(ink)
    assert added.min() >= 0
    assert 3.3 < added.max() < 4


def test_a_filter_of_one_pixel_only_changes_the_contrast() -> None:
    ink = torch.rand(200, 28, 28, generator=generator(3))
    filtered = degraded(RandomFilter(1, size=1), ink)
    for before, after in zip(ink, filtered, strict=True):
        correlation = torch.corrcoef(torch.stack([before.flatten(), after.flatten()]))[0, 1]
        if after.std() > 1e-3:
            assert correlation.abs() > 0.999


def test_filters_find_outlines() -> None:
    filtered = degraded(RandomFilter(1), squares(500))
    inside, edge = filtered[:, 12:16, 12:16].mean((1, 2)), filtered[:, 10, 12:16].mean(1)
    assert (edge > inside + 0.2).float().mean() > 0.1


def test_coarse_pixels_are_even_and_one_bit_images_have_two_values() -> None:
    ink = torch.rand(200, 28, 28, generator=generator(3))
    assert torch.allclose(degraded(LowResolution(1, side=1, one_bit=0), ink), ink, atol=1e-5)
    coarse = degraded(LowResolution(1, side=4, one_bit=0), ink)
    values = torch.tensor([len(image.mul(1e4).round().unique()) for image in coarse])
    assert 0.35 < (values < 300).float().mean() < 0.65
    assert torch.allclose(coarse.mean((1, 2)), ink.mean((1, 2)), atol=0.05)
    one_bit = degraded(LowResolution(1, one_bit=1), ink).mul(1e4).round()
    two_values = torch.tensor([set(image.unique().tolist()) <= {0, 10_000} for image in one_bit])
    assert 0.35 < two_values.float().mean() < 0.65  # the others are interpolated
