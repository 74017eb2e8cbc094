"""Figures show the contents of arrays."""

import math
import time

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist_lightning.evaluation import plots

IMAGES = np.arange(8 * 28 * 28).reshape(8, 28, 28).astype(np.uint8)
LABELS = np.array([3, 1, 4, 1, 5, 9, 2, 6])


def axes_with_images(figure: Figure) -> list[Axes]:
    return [axis for axis in figure.axes if axis.images]


def test_samples_are_the_first_six_with_their_labels() -> None:
    axes = axes_with_images(plots.samples(IMAGES, LABELS))
    assert [axis.get_title() for axis in axes] == [f"true: {label}" for label in LABELS[:6]]
    for axis, image in zip(axes, IMAGES, strict=False):
        assert np.array_equal(np.asarray(axis.images[0].get_array()), image)


def test_mistakes_are_red_with_both_labels() -> None:
    predicted = LABELS.copy()
    predicted[2] = 7
    axes = axes_with_images(plots.predictions(IMAGES, LABELS, predicted, rows=4, columns=2))
    assert len(axes) == 8
    assert axes[2].get_title() == "true: 4  predicted: 7"
    assert [axis.title.get_color() for axis in axes] == ["black"] * 2 + ["red"] + ["black"] * 5


def test_with_few_images_the_rest_of_the_grid_is_empty() -> None:
    figure = plots.samples(IMAGES[:2], LABELS[:2])
    assert len(figure.axes) == 6
    assert len(axes_with_images(figure)) == 2


def test_curves_are_two_by_two_with_one_scale_per_row() -> None:
    history = {
        "train/loss": [0.6, 0.3, 0.2],
        "train/accuracy": [0.8, 0.9, 0.95],
        "val/loss": [0.4, math.nan, 0.3],
        "val/accuracy": [0.85, math.nan, 0.93],
    }
    figure = plots.curves(history)
    assert [axis.get_title() for axis in figure.axes] == [
        "training loss",
        "validation loss",
        "training accuracy",
        "validation accuracy",
    ]
    for axis, values in zip(
        figure.axes, ("train/loss", "val/loss", "train/accuracy", "val/accuracy"), strict=True
    ):
        (line,) = axis.lines
        assert np.array_equal(line.get_xdata(), [1, 2, 3])
        assert line.get_ydata() == pytest.approx(history[values], nan_ok=True)
    limits = [axis.get_ylim() for axis in figure.axes]
    assert limits[0] == limits[1]
    assert limits[2] == limits[3]


def test_training_and_validation_are_in_one_chart_and_differ_without_color() -> None:
    history = {"train/loss": [0.5, 0.3, 0.1], "val/loss": [0.6, 0.4, 0.5]}
    (axis,) = plots.learning_curve(history, "loss", marked_epoch=2).axes
    assert axis.get_title() == "loss"
    train, val, mark = axis.lines
    assert (train.get_label(), val.get_label()) == ("training", "validation")
    assert (train.get_linestyle(), val.get_linestyle()) == ("--", "-")
    assert train.get_marker() != val.get_marker()
    assert np.asarray(mark.get_xdata()).tolist() == [2, 2]
    assert np.asarray(train.get_ydata()).tolist() == history["train/loss"]
    assert np.asarray(val.get_ydata()).tolist() == history["val/loss"]


def test_compared_runs_differ_in_color_and_marker_and_their_training_is_dashed() -> None:
    tags = [f"{stage}/{name}" for stage in ("train", "val") for name in ("loss", "accuracy")]
    history = {tag: [float(place), 1.0] for place, tag in enumerate(tags)}
    figure = plots.overlay_curves({"a": history, "_b": history})
    for axis, quantity in zip(figure.axes, ("loss", "accuracy"), strict=True):
        looks = {}
        for line in axis.lines[:4]:
            looks[line.get_color(), line.get_marker(), line.get_linestyle()] = line.get_ydata()
        assert len(looks) == 4
        assert len({look[:2] for look in looks}) == 2, "the two lines of a run have one look"
        for (_, _, style), values in looks.items():
            stage = "train" if style == "--" else "val"
            assert np.asarray(values).tolist() == history[f"{stage}/{quantity}"]
    legend = figure.axes[1].get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["a", " _b", "validation", "training"]


def test_a_long_curve_is_thinned_out() -> None:
    values = [float(n % 3) if n % 3 else math.nan for n in range(300_000)]
    began = time.process_time()
    plots.png(figure := plots.overlay_curves({"a": {"val/loss": values, "val/accuracy": []}}))
    assert time.process_time() - began < 10
    x = np.asarray(figure.axes[0].lines[0].get_xdata())
    assert len(x) == plots.MAX_POINTS
    assert (x[0], x[-1]) == (1, 300_000)
    assert set(np.diff(x)) == {300, 301}
    figure = plots.overlay_curves({"a": {"val/loss": [1.0] * plots.MAX_POINTS}})
    assert len(np.asarray(figure.axes[0].lines[0].get_xdata())) == plots.MAX_POINTS


def test_a_run_without_validation_has_empty_charts() -> None:
    figure = plots.curves({"train/loss": [1.0], "train/accuracy": [0.5]})
    assert np.size(figure.axes[1].lines[0].get_xdata()) == 0
