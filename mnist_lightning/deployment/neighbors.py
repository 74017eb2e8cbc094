"""Training digits to compare a drawing with: their features in a network, and a 2D map of them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import fx, nn

from mnist_lightning.deployment.network_description import pack, traced
from mnist_lightning.preprocessing.normalization import normalize

FILE = Path(__file__).parent / "static" / "training_digits.png"
COLUMNS, SIZE = 25, 28
PER_LABEL = 50  # the digits are ordered by label


def training_digits() -> NDArray[np.uint8]:
    """Return the digits (500, 28, 28): the first 50 of each label in MNIST's training set."""
    grid = np.asarray(Image.open(FILE))
    rows = grid.reshape(-1, SIZE, COLUMNS, SIZE).swapaxes(1, 2)
    return np.ascontiguousarray(rows.reshape(-1, SIZE, SIZE))


def features(network: nn.Module, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the inputs (N, D) of the last linear layer, or the logits if there is none."""
    program = traced(network, len(pixels)).module()
    graph = program.graph
    linear = [node for node in graph.nodes if str(node.target) == "aten.linear.default"]
    if linear:
        output = next(node for node in graph.nodes if node.op == "output")
        output.args = ((linear[-1].args[0],),)
        graph.eliminate_dead_code()
    module = fx.GraphModule(program, graph)
    with torch.inference_mode():
        output = module(normalize(torch.from_numpy(pixels)))
    return np.asarray(output.flatten(1))


def describe(network: nn.Module) -> dict[str, Any]:
    """Describe the training digits for the page, as JSON types.

    Returns:
        `features`: (N, D); see `pack`. `positions`: (N, 2) in 0 to 1, from
        t-SNE (van der Maaten and Hinton, 2008). `columns`: digits in a row of the image.
        `per_label`: digits of each label.
    """
    from sklearn.manifold import TSNE

    rows = features(network, training_digits())
    map_2d = TSNE(init="pca", random_state=0).fit_transform(rows)
    low, high = map_2d.min(axis=0), map_2d.max(axis=0)
    return {
        "features": pack(rows),
        "positions": ((map_2d - low) / (high - low)).round(4).tolist(),
        "columns": COLUMNS,
        "per_label": PER_LABEL,
    }
