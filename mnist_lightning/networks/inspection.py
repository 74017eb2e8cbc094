"""Look into a network: its layers, its output for an image, its first filters."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mnist_lightning.errors import UserError


class Layer(NamedTuple):
    """A layer of a network as a summary shows it; the shape's first number, -1, is the batch."""

    name: str
    kind: str
    output_shape: list[int]
    parameters: int


def layers(network: nn.Module) -> list[Layer]:
    """List the innermost layers in the order in which a picture passes them.

    The parameters of a layer that is passed again are counted the first time.
    """
    found: list[Layer] = []

    def note(name: str) -> Any:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            own = [] if name in {of.name for of in found} else layer.parameters()
            count = sum(parameter.numel() for parameter in own)
            first = output[0] if isinstance(output, tuple) else output  # of an LSTM, say
            shape = [-1, *first.shape[1:]] if isinstance(first, Tensor) else []
            found.append(Layer(name, type(layer).__name__, shape, count))

        return hook

    hooks = [
        module.register_forward_hook(note(name))
        for name, module in network.named_modules()
        if not list(module.children())
    ]
    try:
        ask_blank(network)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def ask_blank(network: nn.Module) -> Tensor:
    """Return the logits (1, C) of one blank picture; neither network nor generators change."""
    return ask(network, torch.zeros(1, 1, 28, 28))


def ask(network: nn.Module, images: Tensor) -> Tensor:
    """Return the logits (B, C) of images (B, 1, 28, 28); neither network nor generators change."""
    modes = {module: module.training for module in network.modules()}
    parameter = next(network.parameters(), None)
    try:
        with torch.no_grad():
            # To its device, and to its precision.
            logits: Tensor = network.eval()(images if parameter is None else images.to(parameter))
    finally:
        for module, training in modes.items():
            module.training = training
    return logits


def traced(module: nn.Module, example: Tensor, sizes: Any = None) -> torch.export.ExportedProgram:
    """Trace what a module does with an example; `sizes` tells which of its sizes may be others.

    Raises:
        UserError: it does what torch.export does not follow.
    """
    try:
        return torch.export.export(module, (example,), dynamic_shapes=sizes)
    except Exception as error:  # of many kinds
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"torch.export cannot follow this network: {reason}; pth and safetensors take it"
        ) from None


def first_filters(network: nn.Module) -> Tensor | None:
    """What the first layer looks for in a picture, as pictures (N, H, W).

    None where the first layer with weights is neither a convolution over one channel nor a linear
    layer over all of its 784 pixels.
    """
    for layer in network.modules():
        weight = getattr(layer, "weight", None)
        if isinstance(layer, nn.Conv2d) and layer.in_channels == 1:
            return layer.weight.detach()[:, 0]
        if isinstance(layer, nn.Linear) and layer.in_features == 28 * 28:
            return layer.weight.detach().view(-1, 28, 28)
        if isinstance(weight, Tensor):
            return None
    return None


def penultimate(network: nn.Module, images: Tensor) -> Tensor | None:
    """What the last linear layer is given for images (B, 1, 28, 28): features (B, D).

    None where the network has no linear layer, or gives it something else. The network is asked
    in evaluation, and stays as it is.
    """
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1:]
    given: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, args: given.append(args[0])) for layer in last
    ]
    try:
        ask(network, images)
    finally:
        for hook in hooks:
            hook.remove()
    return given[-1] if given and given[-1].shape[:-1] == (len(images),) else None
