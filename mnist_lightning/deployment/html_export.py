"""Export a network as one HTML file that reads digits without a server."""

import base64
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from mnist_lightning import templating
from mnist_lightning.errors import UserError
from mnist_lightning.networks.inspection import traced
from mnist_lightning.preprocessing import mnist_format

PACKAGE = Path(__file__).parent.parent
# What reads a picture, each after what it needs; and what people see.
PREPROCESSING = ["arrays", "pillow", "components", "line_removal", "ink_extraction", "mnist_format"]
READING = [f"preprocessing/js/{name}.js" for name in PREPROCESSING]
READING.append("deployment/static/graph_interpreter.js")
SEEN = [f"deployment/static/{name}.js" for name in ("results", "local_backend", "canvas")]

# Asks a page's network: pixels of many pictures in, their logits out.
ASKING = """
function ask(model, pixels) {
  const logitsOf = network.load(JSON.parse(model));
  const found = [];
  for (let at = 0; at < pixels.length; at += 784) {
    found.push(...logitsOf(pixels.subarray(at, at + 784)));
  }
  return Float32Array.from(found).buffer;
}
"""


def write(network: nn.Module, metadata: dict[str, Any], told: str, path: Path) -> None:
    """Write the page.

    Args:
        network: maps normalized images (B, 1, 28, 28) to logits (B, C).
        metadata: what a program needs to know of it.
        told: what people should.
        path: where.
    """
    page = templating.fill(
        "deployment/static/index.html",
        offline=True,
        about=metadata,
        told=told,
        style=scripts(["deployment/static/page.css"]),
        model=json.dumps(metadata | describe(network)).replace("<", "\\u003c"),
        reading=scripts(READING),
        seen=scripts(SEEN),
    )
    path.write_text(page, encoding="utf-8")


def scripts(names: Iterable[str]) -> str:
    """The text of files of the package, one after the other."""
    return "\n".join((PACKAGE / name).read_text(encoding="utf-8") for name in names)


def describe(network: nn.Module) -> dict[str, Any]:
    """Describe a network in primitives, by the steps that torch.export finds in it.

    Returns:
        `weights`: the shape, the bits and the bytes (base64) of each; those of one dimension are
        float32, the others float16. `steps`: each the name of a function of torch, the numbers of
        the values and of the weights that it is given, by parameter, and its other options. Value 0
        is the image; each step makes the next. `output`: which value holds the logits.
    """
    program = traced(network, torch.zeros(1, 1, mnist_format.SIZE, mnist_format.SIZE))
    program.graph.eliminate_dead_code()
    of = program.graph_signature
    kept = of.inputs_to_parameters | of.inputs_to_buffers | of.inputs_to_lifted_tensor_constants
    named = program.constants | program.state_dict
    values: dict[fx.Node, int] = {}
    weights: dict[fx.Node, int] = {}
    contents, steps = [], []
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name not in kept:
            values[node] = len(values)
        elif node.op == "placeholder" and node.users:
            weights[node] = len(weights)
            contents.append(_packed(named[kept[node.name]]))
        elif node.op == "call_function":
            steps.append(_step(node, values, weights))
            values[node] = len(values)
        elif node.op == "output":
            output = values[node.args[0][0]]
    return {"weights": contents, "steps": steps, "output": output}


def _packed(weight: Tensor) -> dict[str, Any]:
    array = weight.detach().cpu().numpy().astype(np.float16 if weight.ndim > 1 else np.float32)
    content = base64.b64encode(array.tobytes()).decode()
    return {"shape": list(array.shape), "bits": 8 * array.itemsize, "content": content}


def _step(node: fx.Node, values: dict[fx.Node, int], weights: dict[fx.Node, int]) -> dict[str, Any]:
    """Say what function of torch is called with what."""
    name = str(node.target).removeprefix("aten.").removesuffix(".default")
    step: dict[str, Any] = {"name": name, "values": {}, "weights": {}, "options": {}}
    schema = getattr(node.target, "_schema", None)
    for place, parameter in enumerate(schema.arguments if schema else ()):
        argument = node.kwargs.get(parameter.name, parameter.default_value)
        if place < len(node.args):
            argument = node.args[place]
        key = "input" if parameter.name == "self" else parameter.name
        if not isinstance(argument, fx.Node):
            step["options"][key] = json.loads(json.dumps(argument, default=str))
        elif argument in weights:
            step["weights"][key] = weights[argument]
        else:
            step["values"][key] = values[argument]
    return step


def ask(path: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Ask a page's own script for the logits (N, C) of pictures (N, 28, 28).

    Raises:
        UserError: it does not know a step of the network.
    """
    from py_mini_racer import JSEvalException, MiniRacer

    page = path.read_text(encoding="utf-8")
    reading, model = (_content(page, name) for name in ("reading", "model"))
    engine = MiniRacer()
    try:
        engine.eval(reading + ASKING)
        room: Any = engine.eval(f"const pixels = new Uint8Array({pixels.size}); pixels.buffer")
        np.frombuffer(room, np.uint8)[:] = pixels.ravel()
        # By a name: the engine frees what has none, though a view of it is held here.
        asked = f"const logits = ask({json.dumps(model)}, pixels); logits"
        logits: Any = engine.eval(asked)
    except JSEvalException as error:
        found = re.search(r"Error: (.*)", str(error))
        reason = found[1] if found else str(error)
        has = "has" if reason.startswith("no JavaScript") else "fails at this network:"
        raise UserError(f"the page {has} {reason}; the other formats may take it") from None
    return np.frombuffer(logits, np.float32).reshape(len(pixels), -1).copy()


def _content(page: str, name: str) -> str:
    """The content of one of the page's scripts."""
    found = re.search(rf'<script id="{name}"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return found[1]
