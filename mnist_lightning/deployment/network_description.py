"""Describe a network as JSON, for the JavaScript of the page."""

import base64
import json
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from mnist_lightning.networks.inspection import trace
from mnist_lightning.preprocessing import mnist_format


def describe(network: nn.Module, exact: bool = False) -> dict[str, Any]:
    """Describe a network as JSON, by the steps that torch.export finds in it.

    Args:
        network: maps normalized images (B, 1, 28, 28) to logits (B, C).
        exact: keep weights of several dimensions in float32; else they are rounded to float16.

    Returns:
        `weights`: shape, bits and bytes (base64) of each weight. `steps`: for each the name of a
        torch function, the numbers of its input values and weights by parameter, and its other
        options. Value 0 is the image; each step adds a value. `output`: the number of the value
        with the logits.
    """
    program = traced(network)
    inputs = program.graph_signature
    names = inputs.inputs_to_parameters | inputs.inputs_to_buffers
    names |= inputs.inputs_to_lifted_tensor_constants
    tensors = program.constants | program.state_dict
    values: dict[fx.Node, int] = {}
    weights: dict[fx.Node, int] = {}
    contents, steps = [], []
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name not in names:
            values[node] = len(values)
        elif node.op == "placeholder" and node.users:
            weights[node] = len(weights)
            contents.append(_pack(tensors[names[node.name]], exact))
        elif node.op == "call_function":
            steps.append(_step(node, values, weights))
            values[node] = len(values)
        elif node.op == "output":
            output = values[node.args[0][0]]
    return {"weights": contents, "steps": steps, "output": output}


def traced(network: nn.Module) -> torch.export.ExportedProgram:
    """Trace a network for one image, without steps that do not influence the logits."""
    program = trace(network, torch.zeros(1, 1, mnist_format.SIZE, mnist_format.SIZE))
    program.graph.eliminate_dead_code()
    return program


def _pack(weight: Tensor, exact: bool) -> dict[str, Any]:
    dtype = np.float16 if weight.ndim > 1 and not exact else np.float32
    array = weight.detach().cpu().numpy().astype(dtype)
    content = base64.b64encode(array.tobytes()).decode()
    return {"shape": list(array.shape), "bits": 8 * array.itemsize, "content": content}


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
