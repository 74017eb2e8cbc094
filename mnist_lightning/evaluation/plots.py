"""Pictures of data, predictions and curves: pure functions from arrays to matplotlib figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

RIGHT, WRONG = "black", "red"
Pictures = NDArray[np.uint8]
Labels = NDArray[np.integer[Any]]


def samples(images: Pictures, labels: Labels, rows: int = 2, columns: int = 3) -> Figure:
    """Show the first `rows` x `columns` pictures with their true labels.

    Args:
        images: (N, 28, 28), 0 for paper.
        labels: (N,).
        rows: of the grid.
        columns: of the grid.
    """
    titles = [f"true: {label}" for label in labels]
    return _grid(images, titles, [RIGHT] * len(titles), rows, columns)


def predictions(
    images: Pictures, labels: Labels, predicted: Labels, rows: int = 2, columns: int = 3
) -> Figure:
    """Show the first pictures with their true and predicted labels, mistakes in red.

    Args:
        images: (N, 28, 28), 0 for paper.
        labels: (N,), the true ones.
        predicted: (N,).
        rows: of the grid.
        columns: of the grid.
    """
    titles = [f"true: {t}  predicted: {p}" for t, p in zip(labels, predicted, strict=True)]
    colours = [RIGHT if t == p else WRONG for t, p in zip(labels, predicted, strict=True)]
    return _grid(images, titles, colours, rows, columns)


def _grid(
    images: Pictures, titles: Sequence[str], colours: Sequence[str], rows: int, columns: int
) -> Figure:
    figure = Figure(figsize=(2.2 * columns, 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.axis("off")
    for axis, image, title, colour in zip(axes, images, titles, colours, strict=False):
        axis.imshow(image, cmap="gray_r", vmin=0, vmax=255)
        axis.set_title(title, color=colour, fontsize=10)
    return figure


def curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Show loss and accuracy of training and validation over the epochs, as 2 x 2 charts.

    Args:
        history: by `train|val/loss|accuracy` a value for each epoch; what is missing stays empty.
    """
    figure = Figure(figsize=(9, 6), layout="constrained")
    for row, quantity in enumerate(("loss", "accuracy")):
        left = None
        for column, stage in enumerate(("train", "val")):
            # One scale for both, or the eye would compare what cannot be compared.
            axis = figure.add_subplot(2, 2, 2 * row + column + 1, sharey=left)
            left = left or axis
            values = history.get(f"{stage}/{quantity}", [])
            axis.plot(range(1, len(values) + 1), values, marker="o", markersize=3)
            axis.set_title(f"{'training' if stage == 'train' else 'validation'} {quantity}")
            axis.set_xlabel("epoch")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.grid(alpha=0.3)
    return figure
