"""Export a network as one HTML file that reads digits without a server."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mnist_lightning import inference
from mnist_lightning.deployment.network_description import describe
from mnist_lightning.errors import UserError
from mnist_lightning.evaluation.glossary import definitions
from mnist_lightning.networks import calibration
from mnist_lightning.preprocessing import (
    components,
    form_cells,
    forms,
    ink_extraction,
    line_removal,
    mnist_format,
    paper_removal,
)
from mnist_lightning.text import fill_template

PACKAGE = Path(__file__).parent.parent
# The scripts that predict, in the order of their dependencies; then the scripts of every page.
PREPROCESSING = ["arrays", "pillow", "components", "line_removal", "paper_removal"]
PREPROCESSING += ["form_cells", "forms", "ink_extraction", "mnist_format"]
PREDICTION_SCRIPTS = [f"preprocessing/js/{name}.js" for name in PREPROCESSING]
PREDICTION_SCRIPTS += [f"deployment/static/{name}.js" for name in ("graph_interpreter", "reader")]
READER = ["results", "reading_thread"]
VIEWS = ["canvas", "layers", "activation_image", "unit_panel", "inside", "space", "why"]
OFFLINE = [*READER, "local_backend", *VIEWS, "start"]
PAGE_SCRIPTS = [f"deployment/static/{name}.js" for name in OFFLINE]
# The scripts of the server's page; the first one contains the prediction scripts.
SERVED = ["reading", *READER, "server_backend", *VIEWS, "neighbors", "compare", "start"]
SERVED_SCRIPTS = [f"{name}.js" for name in SERVED]
# The terms that the page defines at its end.
PAGE_TERMS = (
    *("confidence", "feature map", "filter", "ink", "input of the network", "logits", "network"),
    *("non-digit", "receptive field", "unit", "unsure", "weights"),
)

# Maps the pixels of many images to logits, with a page's network.
PREDICT_SCRIPT = """
function predict(model, pixels) {
  const logitsOf = network.load(JSON.parse(model)).logits;
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
        terms=definitions(PAGE_TERMS),
    )
    path.write_text(page, encoding="utf-8")


def prediction_script() -> str:
    """Return the script that predicts, with the constants of the Python modules."""
    modules = [components, line_removal, paper_removal, form_cells, forms, ink_extraction]
    modules += [mnist_format, inference, calibration]
    constants = {
        module.__name__.rpartition(".")[2]: {
            name: value
            for name, value in vars(module).items()
            if name.isupper() and isinstance(value, int | float | tuple)
        }
        for module in modules
    }
    return f"const constants = {json.dumps(constants)};\n{scripts(PREDICTION_SCRIPTS)}"


def scripts(names: Iterable[str]) -> str:
    """Return the concatenated text of files of the package."""
    return "\n".join((PACKAGE / name).read_text(encoding="utf-8") for name in names)


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
