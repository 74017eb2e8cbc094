"""Inspect a network: its layers, its output for an image, its first-layer weights."""

from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnist_lightning.errors import UserError


class Layer(NamedTuple):
    """A layer in the summary of a network; -1 in the output shape is the batch dimension."""

    name: str
    kind: str
    output_shape: list[int]
    parameters: int


def layers(network: nn.Module) -> list[Layer]:
    """List the innermost layers in the order of the forward pass.

    A layer that is used twice is listed twice; its parameters are counted the first time.
    """
    listed: list[Layer] = []

    def add(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        own = [] if name in {item.name for item in listed} else layer.parameters()
        count = sum(parameter.numel() for parameter in own)
        first = output[0] if isinstance(output, tuple) else output  # for example of an LSTM
        shape = [-1, *first.shape[1:]] if isinstance(first, Tensor) else []
        listed.append(Layer(name, type(layer).__name__, shape, count))

    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if not list(module.children()):
                hooks.enter_context(module.register_forward_hook(partial(add, name)))
        probe_logits(network)
    return listed


def probe_logits(network: nn.Module) -> Tensor:
    """Return the logits (1, C) of a blank image, as `compute_logits` does."""
    return compute_logits(network, torch.zeros(1, 1, 28, 28))


def compute_logits(network: nn.Module, images: Tensor) -> Tensor:
    """Return the logits (B, C) of images (B, 1, 28, 28) in evaluation mode.

    The network and the random number generators stay unchanged.
    """
    modes = {module: module.training for module in network.modules()}
    parameter = next(network.parameters(), None)
    try:
        with torch.no_grad():
            # Use the device and the precision of the network.
            logits: Tensor = network.eval()(images if parameter is None else images.to(parameter))
    finally:
        for module, training in modes.items():
            module.training = training
    return logits


def trace(module: nn.Module, example: Tensor, sizes: Any = None) -> torch.export.ExportedProgram:
    """Trace a module with an example input; `sizes` are the dynamic sizes of the input.

    Raises:
        UserError: torch.export cannot trace the module.
    """
    try:
        return torch.export.export(module, (example,), dynamic_shapes=sizes)
    except Exception as error:  # torch.export raises many types
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"torch.export cannot trace this network: {reason}; use --format pth or safetensors"
        ) from None


def first_layer_weights(network: nn.Module) -> Tensor | None:
    """Return the weights of the first layer as images (N, H, W).

    Return None if the first layer with weights is neither a convolution over the pixels nor a
    linear layer over all 784 pixels.
    """
    side = 1  # of the squares of pixels that are the channels
    for layer in network.modules():
        weight = getattr(layer, "weight", None)
        if isinstance(layer, nn.PixelUnshuffle):
            side = layer.downscale_factor
        if isinstance(layer, nn.Conv2d) and layer.in_channels == side**2:
            return functional.pixel_shuffle(layer.weight.detach(), side)[:, 0]
        if isinstance(layer, nn.Linear) and layer.in_features == 28 * 28:
            return layer.weight.detach().view(-1, 28, 28)
        if isinstance(weight, Tensor):
            return None
    return None


def penultimate_features(network: nn.Module, images: Tensor) -> Tensor | None:
    """Return the input of the last linear layer for images (B, 1, 28, 28): features (B, D).

    Return None if the network has no linear layer, or if the shape is different. The network is
    evaluated as in `compute_logits`.
    """
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    if not linear:
        return None
    inputs: list[Tensor] = []
    with linear[-1].register_forward_pre_hook(lambda _, args: inputs.append(args[0])):
        compute_logits(network, images)
    return inputs[-1] if inputs and inputs[-1].shape[:-1] == (len(images),) else None
