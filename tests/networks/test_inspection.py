"""The weights of the first layer as images."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from mnist_lightning.networks.inspection import first_layer_weights
from mnist_lightning.networks.speed_cnn import SpeedCNN


@pytest.mark.parametrize("side", [1, 2])
def test_the_weights_of_the_first_layer_are_its_kernels_on_the_image(side: int) -> None:
    layers = nn.Sequential(nn.PixelUnshuffle(side), nn.Conv2d(side**2, 3, 3, bias=False))
    images = torch.randn(2, 1, 28, 28)
    kernels = first_layer_weights(layers)
    assert kernels is not None
    expected = functional.conv2d(images, kernels.unsqueeze(1), stride=side)
    assert torch.allclose(layers(images), expected, atol=1e-5)


def test_the_memory_format_of_gradients_does_not_change_the_training_of_the_speed_run() -> None:
    images, labels = torch.randn(50, 1, 28, 28), torch.arange(50) % 10
    network = SpeedCNN().to(memory_format=torch.channels_last)

    def gradients(forward: nn.Module) -> list[torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            loss = functional.cross_entropy(forward(images), labels)
        return list(torch.autograd.grad(loss, list(network.parameters())))

    plain = nn.Sequential(network.features, network.head)
    assert all(map(torch.equal, gradients(network), gradients(plain)))
