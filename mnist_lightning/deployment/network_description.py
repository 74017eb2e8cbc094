"""Describe a network as JSON, for the JavaScript of the page."""

import base64
import copy
import json
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from mnist_lightning.networks.equivariant_cnn import Deskew
from mnist_lightning.networks.inspection import trace
from mnist_lightning.preprocessing import mnist_format


def describe(network: nn.Module, exact: bool = False) -> dict[str, Any]:
    """Describe a network as JSON, by the steps that torch.export finds in it.

    Args:
        network: maps normalized images (B, 1, 28, 28) to logits (B, C).
        exact: keep all weights in float32; else those of several dimensions are rounded to 16 bits.

    Returns:
        `weights`: each weight; see `pack`. `steps`: for each the name of a
        torch function, the numbers of its input values and weights by parameter, and its other
        options. Value 0 is the image; each step adds a value. `output`: the number of the value
        with the logits.
    """
    program = traced(network)
    constants = _constants(program)
    values: dict[fx.Node, int] = {}
    weights: dict[fx.Node, int] = {}
    contents, steps = [], []
    for node in program.graph.nodes:
        if node.op == "output":
            output = values[node.args[0][0]]
        elif node not in constants:
            for weight in node.all_input_nodes:
                if weight in constants and weight not in weights:
                    weights[weight] = len(weights)
                    contents.append(pack(constants[weight].float().numpy(), exact))
            if node.op == "call_function":
                steps.append(_step(node, values, weights))
            values[node] = len(values)
    return {"weights": contents, "steps": steps, "output": output}


def _constants(program: torch.export.ExportedProgram) -> dict[fx.Node, Tensor]:
    """Return the value of each node that does not depend on the image."""
    inputs = program.graph_signature
    names = inputs.inputs_to_parameters | inputs.inputs_to_buffers
    names |= inputs.inputs_to_lifted_tensor_constants
    tensors = program.constants | program.state_dict
    constants: dict[fx.Node, Tensor] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            constants[node] = tensors[names[node.name]].detach().cpu()
        elif node.all_input_nodes and constants.keys() >= set(node.all_input_nodes):
            arguments, options = fx.map_arg((node.args, node.kwargs), constants.__getitem__)
            constants[node] = node.target(*arguments, **options)
    return constants


def traced(network: nn.Module, batch: int = 1) -> torch.export.ExportedProgram:
    """Trace a network for a batch, without steps that do not influence the logits.

    torch.export replaces the weights of the module while it traces. Therefore it traces a copy:
    other threads of the server may use the network at the same time.
    """
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, Deskew):
            module.forward = _deskew  # type: ignore[method-assign]
    program = trace(network, torch.zeros(batch, 1, mnist_format.SIZE, mnist_format.SIZE))
    program.graph.eliminate_dead_code()
    return program


@torch.library.custom_op(
    "mnist_lightning::deskew", mutates_args=(), schema="(Tensor self) -> Tensor"
)
def _deskew(images: Tensor) -> Tensor:
    """Apply `Deskew` as a single step."""
    deskewed: Tensor = Deskew()(images)
    return deskewed


@_deskew.register_fake
def _(images: Tensor) -> Tensor:
    return torch.empty_like(images)


def pack(values: NDArray[np.float32], exact: bool = False) -> dict[str, Any]:
    """Convert an array to JSON types: 32 bits, or 16 bits with a scale for each row.

    Such integers are about ten times as accurate as floats of 16 bits.
    """
    shape = list(values.shape)
    if exact or values.ndim < 2 or not np.isfinite(values).all():
        return {"shape": shape, "bits": 32, "content": _base64(values.astype("<f4"))}
    rows = values.reshape(len(values), -1)
    scales = np.maximum(np.abs(rows).max(axis=1), 1e-30) / np.iinfo(np.int16).max
    content = _base64((rows / scales[:, None]).round().astype("<i2"))
    return {"shape": shape, "bits": 16, "content": content, "scales": pack(scales)}


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _step(node: fx.Node, values: dict[fx.Node, int], weights: dict[fx.Node, int]) -> dict[str, Any]:
    """Describe a call of a torch function with its arguments."""
    name = str(node.target).removeprefix("aten.").removesuffix(".default")
    step: dict[str, Any] = {"name": name, "values": {}, "weights": {}, "options": {}}
    schema = getattr(node.target, "_schema", None)
    parameters = schema.arguments if schema else []
    given = {p.name: value for p, value in zip(parameters, node.args, strict=False)} | node.kwargs
    for parameter in parameters:
        argument = given.get(parameter.name, parameter.default_value)
        key = "input" if parameter.name == "self" else parameter.name
        if not isinstance(argument, fx.Node):
            step["options"][key] = json.loads(json.dumps(argument, default=str))
        elif argument in weights:
            step["weights"][key] = weights[argument]
        else:
            step["values"][key] = values[argument]
    return step
