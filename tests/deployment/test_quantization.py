"""Weights of 8 bits."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from mnist_lightning.deployment import quantization
from mnist_lightning.deployment.quantization import Dequantize, quantize
from mnist_lightning.networks.equivariant_cnn import EquivariantCNN
from mnist_lightning.networks.multilayer_perceptron import MultilayerPerceptron

STEPS = 127


@pytest.fixture
def images() -> Tensor:
    """Random images."""
    return torch.randn(300, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def _rounded(network: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the weights of 8 bits and their step sizes."""
    for module in network.modules():
        if isinstance(module, ParametrizationList):
            (dequantize,) = module
            assert isinstance(dequantize, Dequantize)
            yield module.original, dequantize.step


def test_kernels_and_matrices_have_8_bits_and_the_rest_is_unchanged(images: Tensor) -> None:
    torch.manual_seed(0)
    network = EquivariantCNN().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    copy = quantize(network, images)
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(weight.requires_grad for weight in network.parameters())
    rounded = list(_rounded(copy))
    assert len(rounded) == sum(weight.ndim > 1 for weight in network.parameters())
    for weight, _ in rounded:
        assert weight.dtype == torch.int8
        assert weight.abs().max() <= STEPS
    (bias,) = (weight for weight in network.parameters() if weight.ndim == 1)
    assert torch.equal(copy.get_parameter("head.2.bias"), bias)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_diverged_or_constant_network_is_rounded(images: Tensor, value: float) -> None:
    network = EquivariantCNN().eval()
    for weight in network.parameters():
        nn.init.constant_(weight, value)
    assert len(list(_rounded(quantize(network, images)))) > 0


def test_each_kernel_and_each_row_has_its_own_step_size(images: Tensor) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 5), nn.Conv2d(4, 3, 1), nn.Flatten(), nn.Linear(1728, 5)
    )
    shapes = [tuple(step.shape) for _, step in _rounded(quantize(network.eval(), images))]
    assert shapes == [(4, 1, 1, 1), (3, 1, 1, 1), (5, 1)]


def test_weights_of_a_large_network_are_the_nearest_ones(images: Tensor) -> None:
    torch.manual_seed(0)
    network = MultilayerPerceptron().eval()
    copy = quantize(network, images)
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    for layer, (weight, step) in zip(layers, _rounded(copy), strict=True):
        assert ((weight * step - layer.weight).abs() <= step / 2 + 1e-7).all()


@pytest.mark.parametrize("pooled", [7, 28])  # a small and a large network
def test_weights_of_zero_stay_zero(images: Tensor, pooled: int) -> None:
    linear = nn.Linear(pooled**2, 10)
    nn.init.zeros_(linear.weight)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(pooled), nn.Flatten(), linear).eval()
    assert torch.equal(quantize(network, images)(images), network(images))


def test_a_kernel_of_zeros_and_an_unused_layer_are_no_problem(images: Tensor) -> None:
    torch.manual_seed(0)
    network = EquivariantCNN().eval()
    nn.init.zeros_(network.kernels.weight[:1])
    network.unused = nn.Linear(3, 3)
    assert quantize(network, images)(images).isfinite().all()


def test_roundings_of_a_small_network_are_chosen_together(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = EquivariantCNN()
    for _ in range(50):
        network(images)  # sets the statistics of the normalizations
    network.eval()

    def error(copy: nn.Module) -> float:
        """Return the mean square change of the difference of the two largest logits."""
        with torch.no_grad():
            exact, largest = network(images), network(images).topk(2).indices
            return float((copy(images) - exact).gather(1, largest).diff().square().mean())

    together = error(quantize(network, images))
    monkeypatch.setattr(quantization, "MAX_WEIGHTS", 0)
    assert together < error(quantize(network, images)) / 3
