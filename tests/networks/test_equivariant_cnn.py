"""The network whose weights are shared by rotations and reflections."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mnist_lightning.data.augmentations import Deformation
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.networks.equivariant_cnn import Deskew, EquivariantCNN
from mnist_lightning.preprocessing.normalization import PAPER, normalize

DIGITS = normalize(SOURCES["digits"].load(Path()).test_images[:200])
TURNS = {
    "rotated": lambda image: image.rot90(1, (2, 3)),
    "mirrored": lambda image: image.flip(3),
    "both": lambda image: image.rot90(3, (2, 3)).flip(2),
}


def features(network: EquivariantCNN, images: Tensor) -> Tensor:
    """Return the input of the linear layer (B, features, 8) without centering and shearing."""
    deskew, norm = network.normalize
    network.normalize, last = nn.Sequential(nn.Identity(), norm), network.head.pop(2)
    with torch.inference_mode():
        found: Tensor = network.eval()(images).unflatten(1, (-1, 8))
    network.normalize = nn.Sequential(deskew, norm)
    network.head.append(last)
    return found


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_image_has_the_same_features_in_another_order(turn: str) -> None:
    torch.manual_seed(0)
    network = EquivariantCNN(width=3, wider=4)
    images = torch.randn(4, 1, 28, 28)
    network(images)  # statistics of the normalizations
    before, after = features(network, images), features(network, TURNS[turn](images))
    assert not torch.allclose(before, after, rtol=1e-2)
    assert torch.allclose(before.sort()[0], after.sort()[0], rtol=1e-3, atol=1e-9)


def test_the_logits_of_a_turned_image_are_different() -> None:
    network = EquivariantCNN()
    logits, turned = network(DIGITS), network(DIGITS.rot90(2, (2, 3)))
    assert not torch.allclose(logits, turned, rtol=1e-2)


def test_sheared_and_shifted_digits_become_similar() -> None:
    moved = Deformation(degrees=0, scale=0, shear=20, shift=3)
    generator = torch.Generator().manual_seed(0)
    changed = moved(DIGITS, generator)
    before = (changed - DIGITS).square().mean()
    after = (Deskew()(changed) - Deskew()(DIGITS)).square().mean()
    assert after < before / 4


def test_an_upright_centered_image_stays() -> None:
    images = torch.full((1, 1, 28, 28), PAPER)
    images[:, :, 4:24, 12:16] = 2.8
    assert torch.allclose(Deskew()(images), images, atol=1e-3)


@pytest.mark.parametrize("value", [PAPER, 0.0, 2.8])
def test_an_image_without_ink_stays(value: float) -> None:
    images = torch.full((2, 1, 28, 28), value)
    assert torch.allclose(Deskew()(images), images, atol=1e-4)
    assert EquivariantCNN()(images).isfinite().all()


def test_the_statistics_of_training_and_evaluation_agree() -> None:
    network = EquivariantCNN()
    with torch.inference_mode():
        for _ in range(200):
            trained = network(DIGITS)
        assert torch.allclose(network.eval()(DIGITS), trained, rtol=0.02, atol=0.01)
