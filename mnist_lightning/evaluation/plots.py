"""Figures of data, predictions and curves: pure functions from arrays to matplotlib."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mnist_lightning.evaluation.metrics import Calibration, Labels
from mnist_lightning.text import printable

CORRECT, WRONG = "black", "red"
MAX_POINTS = 1_000  # of a curve: a longer one is thinned out
MAX_SHOWN = 1e30  # matplotlib cannot scale an axis to larger numbers
FIRST_IMAGES = 6
ROW_HEIGHT = 2.4  # of a figure with many axes, in inches
MARKERS = "osD^vP*Xp<>"  # of runs in one chart
Images = NDArray[np.uint8]


class Robustness(NamedTuple):
    """Accuracy under one kind of corruption.

    Attributes:
        name: of the corruption.
        unit: of the strengths.
        strengths: the severities, weakest first.
        accuracies: one for each strength.
        intervals: the confidence interval of each accuracy.
    """

    name: str
    unit: str
    strengths: Sequence[float]
    accuracies: Sequence[float]
    intervals: Sequence[tuple[float, float]]


@contextmanager
def default_style() -> Iterator[None]:
    """Draw in matplotlib's default style, and ignore a `matplotlibrc` in the working directory."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


@default_style()
def samples(images: Images, labels: Labels) -> Figure:
    """Show the first six images (N, 28, 28), 0 for paper, with their true labels (N,)."""
    titles = [f"true: {label}" for label in labels]
    return _grid(images, titles, [CORRECT] * len(titles), rows=2, columns=3)


@default_style()
def predictions(
    images: Images,
    labels: Labels,
    predicted: Labels,
    confidence: NDArray[np.floating[Any]] | None = None,
    rows: int = 2,
    columns: int = 3,
) -> Figure:
    """Show the first images with their true and predicted labels, mistakes in red.

    Args:
        images: (N, 28, 28), 0 for paper.
        labels: (N,), the true labels.
        predicted: (N,).
        confidence: (N,) the probability of the predicted label; None: not shown.
        rows: rows of the grid.
        columns: columns of the grid.
    """
    titles = [f"true: {t}  predicted: {p}" for t, p in zip(labels, predicted, strict=True)]
    if confidence is not None:
        titles = [f"{title}\n{p:.1%}" for title, p in zip(titles, confidence, strict=True)]
    colors = [CORRECT if t == p else WRONG for t, p in zip(labels, predicted, strict=True)]
    return _grid(images, titles, colors, rows, columns)


def _grid(
    images: Images, titles: Sequence[str], colors: Sequence[str], rows: int, columns: int
) -> Figure:
    figure, axes = _subplots(rows, columns, 2.2, left=0.05, below=0.05, above=0.45)
    for axis in axes:
        axis.axis("off")
    for axis, image, title, color in zip(axes, images, titles, colors, strict=False):
        axis.imshow(image, cmap="gray_r", vmin=0, vmax=255)
        axis.set_title(title, color=color, fontsize=10)
    return figure


def _subplots(
    rows: int, columns: int, width: float, left: float, below: float, above: float, **options: Any
) -> tuple[Figure, NDArray[Any]]:
    """Return a figure and its axes, row by row.

    With many axes, matplotlib's constrained layout takes longer than the drawing. So the space is
    fixed, in inches: `left` of the figure, and `below` and `above` each row.
    """
    size = width * columns, ROW_HEIGHT * rows
    figure = Figure(figsize=size)
    figure.subplots_adjust(left / size[0], below / size[1], 1 - 0.05 / size[0], 1 - above / size[1])
    figure.subplots_adjust(wspace=0.08, hspace=(below + above) / (ROW_HEIGHT - below - above))
    return figure, figure.subplots(rows, columns, squeeze=False, **options).flatten()


@default_style()
def confusion(counts: NDArray[np.int64]) -> Figure:
    """Show a confusion matrix (C, C): true labels down, predicted labels across, with counts."""
    classes = len(counts)
    figure = Figure(figsize=(5.2, 5), layout="constrained")
    axis = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # The fourth root makes a single mistake visible beside a thousand correct predictions.
    axis.imshow(shares**0.25, cmap="Blues", vmin=0, vmax=1)
    for true, predicted in zip(*np.nonzero(counts), strict=True):
        color = "white" if shares[true, predicted] > 0.2 else "black"
        axis.text(predicted, true, counts[true, predicted], ha="center", va="center", color=color)
    axis.set(xticks=range(classes), yticks=range(classes))
    axis.set(xlabel="predicted label", ylabel="true label")
    return figure


@default_style()
def reliability(title: str, calibration: Calibration) -> Figure:
    """Show accuracy over confidence, and the number of images."""
    figure = Figure(figsize=(4.5, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    left, width = calibration.edges[:-1], np.diff(calibration.edges)
    upper.bar(left, np.nan_to_num(calibration.accuracy), width, align="edge", alpha=0.6)
    upper.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle="dashed")
    upper.plot(calibration.confidence, calibration.accuracy, "o", color="black", markersize=3)
    upper.set_title(f"{title}: calibration error {100 * calibration.error:.2f} %")
    upper.set_ylabel("accuracy")
    lower.bar(left, calibration.support, width, align="edge", alpha=0.6)
    lower.set(yscale="log", ylabel="images", xlabel="confidence")
    return figure


@default_style()
def robustness(results: Sequence[Robustness], clean_accuracy: float) -> Figure:
    """Show accuracy over the strength of each corruption, one chart each.

    Args:
        results: one for each corruption.
        clean_accuracy: the accuracy on the original images.
    """
    columns = 3
    rows = -(-len(results) // columns)
    figure, axes = _subplots(rows, columns, 3, left=0.6, below=0.5, above=0.3, sharey=True)
    for axis in axes[len(results) :]:
        axis.axis("off")
    for axis, result in zip(axes, results, strict=False):
        low, high = zip(*result.intervals, strict=True)
        axis.axhline(clean_accuracy, color="black", linewidth=0.8, linestyle="dashed")
        axis.fill_between(result.strengths, low, high, alpha=0.25)
        axis.plot(result.strengths, result.accuracies, marker="o", markersize=3)
        axis.set_title(result.name, fontsize=10)
        axis.set_xlabel(result.unit, fontsize=8)
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=0.3)
    for axis in axes[::columns]:
        axis.set_ylabel("accuracy")
    return figure


@default_style()
def attributions(
    images: Images, titles: Sequence[str], rows: Mapping[str, NDArray[np.floating[Any]]]
) -> Figure:
    """Show images, with attribution maps below each.

    Args:
        images: (N, 28, 28), 0 for paper.
        titles: N titles.
        rows: by name, maps (N, 28, 28); a higher value means more influence.
    """
    columns = len(images)
    figure = Figure(figsize=(1.3 * columns + 0.6, 1.45 * (1 + len(rows))), layout="constrained")
    no_ticks: dict[str, Any] = {"xticks": [], "yticks": []}
    axes = figure.subplots(1 + len(rows), columns, squeeze=False, subplot_kw=no_ticks)
    for axis, image, title in zip(axes[0], images, titles, strict=True):
        axis.imshow(image, cmap="gray_r", vmin=0, vmax=255)
        axis.set_title(title, fontsize=8)
    for row, (name, maps) in zip(axes[1:], rows.items(), strict=True):
        row[0].set_ylabel(name, fontsize=8)
        for axis, values, image in zip(row, maps, images, strict=True):
            axis.imshow(values, cmap="magma", vmin=0, vmax=max(values.max(), 1e-12))
            axis.contour(image, levels=[127], colors="white", linewidths=0.5)
    return figure


@default_style()
def overlay_curves(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Show loss and accuracy of several runs, one chart each: training dashed, validation solid.

    The runs differ in color and in their markers.

    Args:
        histories: for each run's name, `train|val/loss|accuracy` with a value for each epoch.
    """
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    for position, quantity in enumerate(("loss", "accuracy"), 1):
        axis = figure.add_subplot(1, 2, position)
        for place, (name, history) in enumerate(histories.items()):
            look = {"color": f"C{place}", "marker": MARKERS[place % len(MARKERS)]}
            # A legend omits labels that start with an underscore.
            label = f" {printable(name)}" if name.startswith("_") else printable(name)
            _plot_epochs(axis, history, f"val/{quantity}", label=label, **look)
            _plot_epochs(axis, history, f"train/{quantity}", linestyle="--", alpha=0.6, **look)
        axis.set(title=quantity)
    # An entry for both lines of all runs.
    for name, style in (("validation", "-"), ("training", "--")):
        axis.plot([], [], style, color="black", label=name)
    for text in axis.legend().get_texts():
        text.set_parse_math(False)  # `$` in a name must not start a formula
    return figure


@default_style()
def png(figure: Figure) -> bytes:
    """Draw a figure as a PNG, in print resolution."""
    buffer = io.BytesIO()
    figure.dpi = 150
    FigureCanvasAgg(figure).print_png(buffer)  # `savefig` draws it twice
    return buffer.getvalue()


@default_style()
def pixels(figure: Figure) -> NDArray[np.uint8]:
    """Draw a figure as an array (H, W, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3]


@default_style()
def curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Show loss and accuracy of training and validation over the epochs, as 2 x 2 charts.

    Args:
        history: for `train|val/loss|accuracy` a value for each epoch; a missing chart stays empty.
    """
    figure = Figure(figsize=(9, 6), layout="constrained")
    for row, quantity in enumerate(("loss", "accuracy")):
        left = None
        for column, stage in enumerate(("train", "val")):
            # One scale for both, so that they can be compared.
            axis = figure.add_subplot(2, 2, 2 * row + column + 1, sharey=left)
            left = left or axis
            _plot_epochs(axis, history, f"{stage}/{quantity}")
            axis.set(title=f"{'training' if stage == 'train' else 'validation'} {quantity}")
    return figure


@default_style()
def learning_curve(
    history: Mapping[str, Sequence[float]], quantity: str, marked_epoch: int | None = None
) -> Figure:
    """Show training (dashed, circles) and validation (solid, squares) in one chart.

    Args:
        history: for `train|val/loss|accuracy` a value for each epoch.
        quantity: `loss` or `accuracy`.
        marked_epoch: the epoch with the lowest validation loss, if it is known.
    """
    figure = Figure(figsize=(4.5, 3.6), layout="constrained")
    axis = figure.add_subplot()
    _plot_epochs(axis, history, f"train/{quantity}", label="training", linestyle="--", marker="o")
    _plot_epochs(axis, history, f"val/{quantity}", label="validation", linestyle="-", marker="s")
    if marked_epoch is not None:
        label = "lowest validation loss"
        axis.axvline(marked_epoch, color="black", linewidth=1, linestyle="dotted", label=label)
    axis.set(title=quantity)
    axis.legend()
    return figure


def _plot_epochs(axis: Axes, history: Mapping[str, Sequence[float]], tag: str, **look: Any) -> None:
    """Plot a metric over the epochs; `look` are arguments of matplotlib's `plot`."""
    values = history.get(tag, [])
    count = len(values)
    epochs = np.unique(np.linspace(1, count, min(count, MAX_POINTS)).round().astype(int))
    shown = [values[i - 1] if abs(values[i - 1]) < MAX_SHOWN else math.nan for i in epochs]
    axis.plot(epochs, shown, **{"marker": "o", "markersize": 3, **look})
    axis.set(xlabel="epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(visible=True, alpha=0.3)
