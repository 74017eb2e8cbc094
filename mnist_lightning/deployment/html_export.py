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

from mnist_lightning import inference
from mnist_lightning.errors import UserError
from mnist_lightning.networks import calibration
from mnist_lightning.networks.inspection import trace
from mnist_lightning.preprocessing import components, ink_extraction, line_removal, mnist_format
from mnist_lightning.text import fill_template

PACKAGE = Path(__file__).parent.parent
# The scripts that predict, in the order of their dependencies; then the scripts of the page.
PREPROCESSING = ["arrays", "pillow", "components", "line_removal", "ink_extraction", "mnist_format"]
PREDICTION_SCRIPTS = [f"preprocessing/js/{name}.js" for name in PREPROCESSING]
PREDICTION_SCRIPTS.append("deployment/static/graph_interpreter.js")
PAGE_SCRIPTS = [f"deployment/static/{name}.js" for name in ("results", "local_backend", "canvas")]

# Maps the pixels of many images to logits, with a page's network.
PREDICT_SCRIPT = """
function predict(model, pixels) {
  const logitsOf = network.load(JSON.parse(model));
  const logits = [];
  for (let start = 0; start < pixels.length; start += 784) {
    logits.push(...logitsOf(pixels.subarray(start, start + 784)));
  }
  return Float32Array.from(logits).buffer;
}
"""


def write(network: nn.Module, metadata: dict[str, Any], summary: str, path: Path) -> None:
    """Write the page.

    Args:
        network: maps normalized images (B, 1, 28, 28) to logits (B, C).
        metadata: for programs.
        summary: a text for people.
        path: of the page.
    """
    page = fill_template(
        "deployment/static/index.html",
        offline=True,
        about=metadata,
        summary=summary,
        style=scripts(["deployment/static/page.css"]),
        model=json.dumps(metadata | describe(network)).replace("<", "\\u003c"),
        reading=prediction_script(),
        seen=scripts(PAGE_SCRIPTS),
    )
    path.write_text(page, encoding="utf-8")


def prediction_script() -> str:
    """Return the script that predicts, with the constants of the Python modules."""
    modules = (components, line_removal, ink_extraction, mnist_format, inference, calibration)
    constants = {
        module.__name__.rpartition(".")[2]: {
            name: value
            for name, value in vars(module).items()
            if name.isupper() and isinstance(value, int | float)
        }
        for module in modules
    }
    return f"const constants = {json.dumps(constants)};\n{scripts(PREDICTION_SCRIPTS)}"


def scripts(names: Iterable[str]) -> str:
    """Return the concatenated text of files of the package."""
    return "\n".join((PACKAGE / name).read_text(encoding="utf-8") for name in names)


def describe(network: nn.Module) -> dict[str, Any]:
    """Describe a network as JSON, by the steps that torch.export finds in it.

    Returns:
        `weights`: shape, bits and bytes (base64) of each weight; float32 for one dimension, float16
        for more. `steps`: for each the name of a torch function, the numbers of its input values
        and weights by parameter, and its other options. Value 0 is the image; each step adds a
        value. `output`: the number of the value with the logits.
    """
    program = trace(network, torch.zeros(1, 1, mnist_format.SIZE, mnist_format.SIZE))
    program.graph.eliminate_dead_code()
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
            contents.append(_pack(tensors[names[node.name]]))
        elif node.op == "call_function":
            steps.append(_step(node, values, weights))
            values[node] = len(values)
        elif node.op == "output":
            output = values[node.args[0][0]]
    return {"weights": contents, "steps": steps, "output": output}


def _pack(weight: Tensor) -> dict[str, Any]:
    array = weight.detach().cpu().numpy().astype(np.float16 if weight.ndim > 1 else np.float32)
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


def predict_logits(path: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute the logits (N, C) of images (N, 28, 28) with the scripts of a page.

    Raises:
        UserError: the scripts do not support a step of the network.
    """
    from py_mini_racer import JSEvalException, MiniRacer

    page = path.read_text(encoding="utf-8")
    reading, model = (_content(page, name) for name in ("reading", "model"))
    engine = MiniRacer()
    try:
        engine.eval(reading + PREDICT_SCRIPT)
        buffer: Any = engine.eval(f"const pixels = new Uint8Array({pixels.size}); pixels.buffer")
        np.frombuffer(buffer, np.uint8)[:] = pixels.ravel()
        # In a variable: the engine frees other values, even if a view of them exists here.
        logits: Any = engine.eval(f"const logits = predict({json.dumps(model)}, pixels); logits")
    except JSEvalException as error:
        match = re.search(r"Error: (.*)", str(error))
        reason = match[1] if match else str(error)
        raise UserError(
            f"the page does not support this network: {reason}; use another format"
        ) from None
    return np.frombuffer(logits, np.float32).reshape(len(pixels), -1).copy()


def _content(page: str, name: str) -> str:
    """Return the content of one script of a page."""
    match = re.search(rf'<script id="{name}"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert match is not None
    return match[1]
