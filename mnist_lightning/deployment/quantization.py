"""Round the weights of a network to 8 bits."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

STEPS = 127  # a weight is -127 to 127 steps
MIN_GROUP = 8  # weights with a common step size
MAX_WEIGHTS = 4096  # of a network whose rounding is optimized; time and memory grow with the square
UNCERTAIN = 2000  # training images for which the rounding is optimized
RIDGE = 1e-3  # added to the diagonal, relative to its mean


class Dequantize(nn.Module):
    """Turns weights of 8 bits into real numbers: multiplies them by their step size."""

    step: Tensor

    def __init__(self, step: Tensor) -> None:
        super().__init__()
        self.register_buffer("step", step)

    def forward(self, rounded: Tensor) -> Tensor:
        """Return the real numbers."""
        return rounded * self.step


def quantize(network: nn.Module, images: Tensor) -> nn.Module:
    """Return a copy of a network whose kernels and matrices have 8 bits; the rest is unchanged.

    Each weight is rounded to a multiple of a step size. Kernels of at least 8 weights have their
    own step size; otherwise all weights of an output share one.
    In a small network, each error of rounding matters. There, one weight is rounded after the
    other, and the weights that follow make up for its error, as in GPTQ (Frantar et al., 2022),
    but for all layers together. The aim is that the difference of the two largest logits stays
    the same on the training images for which it is smallest.

    Args:
        network: in evaluation mode.
        images: (N, 1, 28, 28), normalized training images.
    """
    network = deepcopy(network).requires_grad_(False)
    layers = _layers(network)
    weights = list(layers.values())
    steps = [_step_sizes(weight) for weight in weights]
    if sum(weight.numel() for weight in weights) <= MAX_WEIGHTS:
        _choose_roundings(network, images, weights, steps)
    for (layer, weight), step in zip(layers.items(), steps, strict=True):
        layer.weight = nn.Parameter((weight / step).round().to(torch.int8), requires_grad=False)
        register_parametrization(layer, "weight", Dequantize(step), unsafe=True)
    return network


def _layers(network: nn.Module) -> dict[nn.Module, Tensor]:
    """Return the layers with a kernel or a matrix, and its values."""
    weights = {module: getattr(module, "weight", None) for module in network.modules()}
    return {
        layer: weight
        for layer, weight in weights.items()
        if isinstance(weight, nn.Parameter) and weight.ndim > 1
    }


def _step_sizes(weight: Tensor) -> Tensor:
    """Return for each group of a weight the step size with the smallest error of rounding."""
    own = weight[0, 0].numel() >= MIN_GROUP
    groups = weight.flatten(2 if own else 1)
    largest = groups.abs().amax(dim=-1, keepdim=True)
    largest[largest == 0] = 1
    candidates = [largest / steps for steps in range(STEPS * 3 // 4, STEPS + 1)]
    errors = [((groups / step).round() * step - groups).square().sum(-1) for step in candidates]
    best = torch.stack(errors, dim=-1).argmin(dim=-1, keepdim=True)
    step = torch.cat(candidates, dim=-1).gather(-1, best)
    return step.view(*step.shape[:-1], *[1] * (weight.ndim - step.ndim + 1))


def _choose_roundings(
    network: nn.Module, images: Tensor, weights: list[Tensor], steps: list[Tensor]
) -> None:
    """Replace the weights by multiples of their step sizes."""
    gradients = _margin_gradients(network, images, weights)
    change = gradients.T @ gradients / len(gradients)  # a quadratic form of the errors
    if not (change.isfinite().all() and change.diagonal().any()):
        return  # the network has diverged, or its output is constant
    change += RIDGE * change.diagonal().mean() * torch.eye(len(change))
    exact = torch.cat([weight.flatten() for weight in weights]).double()
    pairs = zip(weights, steps, strict=True)
    step = torch.cat([size.expand_as(weight).flatten() for weight, size in pairs]).double()
    rounded = _round_in_turn(change * step * step.unsqueeze(1), exact / step) * step
    for weight, values in zip(weights, rounded.split([w.numel() for w in weights]), strict=True):
        weight.copy_(values.view_as(weight))


def _margin_gradients(network: nn.Module, images: Tensor, weights: list[Tensor]) -> Tensor:
    """Return the gradients (images, weights) of the difference of the two largest logits."""
    with torch.no_grad():
        logits = torch.cat([network(part) for part in images.split(1000)])
    largest, classes = logits.topk(2)
    uncertain = (largest[:, 0] - largest[:, 1]).argsort()[:UNCERTAIN]
    for weight in weights:
        weight.requires_grad_()
    rows = []
    for image, (first, second) in zip(images[uncertain], classes[uncertain], strict=True):
        (output,) = network(image.unsqueeze(0))
        margin = output[first] - output[second]
        gradients = torch.autograd.grad(margin, weights, materialize_grads=True)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    for weight in weights:
        weight.requires_grad_(False)
    return torch.stack(rows).double()


def _round_in_turn(change: Tensor, exact: Tensor) -> Tensor:
    """Return integers near `exact` (P,) with a small change e' C e for their errors e.

    After each rounding, the weights that follow make up for its error.
    """
    rest = exact.clone()
    inverse = torch.linalg.cholesky(torch.linalg.inv(change), upper=True)
    for place, row in enumerate(inverse):
        rounded = rest[place].round().clamp(-STEPS, STEPS)
        error = (rest[place] - rounded) / row[place]
        rest[place:] -= error * row[place:]
    return rest.round()
