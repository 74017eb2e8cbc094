"""Draw the figures of the lessons. The code of the lessons computes what they show.

    python docs/lesson_figures.py --data_dir DATA

DATA must contain MNIST. The figures are written to docs/images. They are narrow, and their text is
large: they are readable on a phone.
"""

import argparse
import re
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from learn_figures import COLOR, FOLDER, show_image
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

LESSONS = Path(__file__).resolve().parent / "lessons"
SECOND_COLOR = "#c05a00"
WIDTH = 5.0  # inches; if the figure is 360 pixels wide, text of 10 points is 10 pixels high
COLORS = 64  # of the palette of a PNG file

Variables = dict[str, Any]


def python_blocks(lesson: str) -> list[str]:
    """Return the blocks of Python code of a lesson."""
    text = (LESSONS / f"{lesson}.md").read_text()
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run_lesson(lesson: str, data_dir: Path) -> Variables:
    """Run the code of a lesson in a temporary directory; return its variables."""
    variables: Variables = {"__name__": lesson}
    with TemporaryDirectory() as folder, chdir(folder), redirect_stdout(StringIO()):
        Path("data").symlink_to(data_dir)
        for block in python_blocks(lesson):
            exec(block, variables)
    return variables


def new_figure(height: float) -> Figure:
    """Return a figure of the width of all figures."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def save(figure: Figure, name: str) -> None:
    """Save a figure as PNG with a palette: it is a third as large."""
    path = FOLDER / f"lesson_{name}.png"
    figure.savefig(path, dpi=150)
    Image.open(path).convert("RGB").quantize(COLORS).save(path, optimize=True)


def draw_normalization(lesson: Variables) -> None:
    """Draw a digit, eight of its pixels, and these pixels after normalization."""
    row, first, end = 14, 10, 18  # as in the lesson
    figure = new_figure(4.4)
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 1))
    show_image(top, lesson["picture"])
    frame = Rectangle((first - 0.5, row - 0.5), end - first, 1, fill=False, color=SECOND_COLOR)
    top.add_patch(frame)
    top.set_title(f"a tensor of the shape (28, 28), and its pixels [{row}, {first}:{end}]", size=10)
    values = torch.stack(
        [lesson["picture"][row, first:end].float(), lesson["normalized"][0, 0, row, first:end]]
    )
    bottom.imshow(values[:1].repeat(2, 1), cmap="gray_r", alpha=0.2, aspect="auto")
    for (line, column), value in np.ndenumerate(values.numpy()):
        text = f"{value:.2f}" if line else f"{value:.0f}"
        bottom.text(column, line, text, ha="center", va="center", fontsize=10)
    bottom.set_yticks([0, 1], ["bytes", "normalized"])
    bottom.set_xticks([])
    bottom.spines[:].set_color(SECOND_COLOR)
    save(figure, "normalization")


def train_on_points(activation: nn.Module, points: Tensor, labels: Tensor) -> nn.Module:
    """Train a small network on points, as the third exercise of lesson 2 does."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(2, 32), activation, nn.Linear(32, 2))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(500):
        loss = functional.cross_entropy(network(points), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def draw_nonlinearity(lesson: Variables) -> None:
    """Draw points in a circle and around it, and where each network predicts which class."""
    points, labels = lesson["points"], lesson["inside"]
    figure = new_figure(3.1)
    plots = zip(figure.subplots(1, 2), (nn.Identity(), nn.ReLU()), ("without", "with"), strict=True)
    for axes, activation, title in plots:
        network = train_on_points(activation, points, labels)
        steps = torch.linspace(-1, 1, 200)
        with torch.no_grad():
            grid = network(torch.cartesian_prod(steps, steps)).softmax(dim=1)[:, 1]
            accuracy = (network(points).argmax(dim=1) == labels).float().mean()
        shares = grid.view(200, 200).T
        axes.contourf(steps, steps, shares, [0, 0.5, 1], colors=["#f6dcc4", "#cfe0f4"])
        for label, (color, marker) in enumerate(((SECOND_COLOR, "x"), (COLOR, "o"))):
            x, y = points[labels == label].T
            axes.scatter(x, y, s=9, color=color, marker=marker, linewidths=0.8)
        axes.set_title(f"{title} ReLU: {accuracy:.0%} correct", fontsize=10)
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
    save(figure, "nonlinearity")


def draw_overfitting(lesson: Variables) -> None:
    """Draw the training and validation losses without and with dropout."""
    figure = new_figure(5.6)
    rows = figure.subplots(2, 1, sharex=True)
    histories = {"without dropout": lesson["history"], "with dropout": lesson["regularized"]}
    for axes, (title, history) in zip(rows, histories.items(), strict=True):
        train_losses, _, val_losses, _ = np.array(history).T
        epochs = np.arange(1, len(history) + 1)
        axes.plot(epochs, train_losses, "--", color=SECOND_COLOR, label="training")
        axes.plot(epochs, val_losses, color=COLOR, label="validation")
        best = int(val_losses.argmin())
        label = f"lowest validation loss: epoch {epochs[best]}"
        axes.plot(epochs[best], val_losses[best], "o", color="black", label=label)
        axes.set_title(title, fontsize=10)
        axes.set_ylabel("loss")
        axes.set_ylim(0, 1.3)
        axes.legend(frameon=False, fontsize=9)
    rows[1].set_xlabel("epoch")
    save(figure, "overfitting")


def draw_seeds(lesson: Variables) -> None:
    """Draw the accuracies of several seeds, and the sums of the same numbers in many orders."""
    figure = new_figure(4.8)
    top, bottom = figure.subplots(2, 1)
    accuracies = lesson["accuracies"]
    seeds = range(1, len(accuracies) + 1)
    top.plot(seeds, accuracies, "o", color=COLOR)
    mean, std = accuracies.mean().item(), accuracies.std().item()
    top.axhline(mean, color="black", linewidth=1)
    top.axhspan(mean - std, mean + std, color=COLOR, alpha=0.15)
    top.set_title(f"other seeds: {mean:.1f} ± {std:.1f} % (mean ± standard deviation)", fontsize=10)
    top.set_xlabel("seed")
    top.set_ylabel("accuracy (%)")
    exact = float(lesson["values"].astype(np.float64).sum())
    errors = [1e5 * (computed - exact) for computed in lesson["sums"]]
    bottom.hist(errors, bins=40, color=SECOND_COLOR)
    bottom.set_title("other orders: the same 10,000 numbers, added in float32", fontsize=10)
    bottom.set_xlabel("difference from the exact sum, in 0.00001")
    bottom.set_ylabel("orders")
    save(figure, "seeds")


def draw_logging(lesson: Variables) -> None:
    """Draw the loss of each step, the logged values, and the means over the intervals."""
    interval = 50
    losses = lesson["losses"].numpy()
    steps = np.arange(1, len(losses) + 1)
    axes = (figure := new_figure(3.3)).subplots()
    axes.plot(steps, losses, color="silver", linewidth=1, label="each step")
    logged = steps % interval == 0
    label = f"log interval {interval}"
    axes.plot(steps[logged], losses[logged], "o-", color=COLOR, label=label)
    means = losses.reshape(-1, interval).mean(axis=1)
    label = f"mean over {interval} steps"
    edges = [*steps[::interval].tolist(), len(losses)]
    axes.stairs(means, edges, baseline=None, color=SECOND_COLOR, label=label, linewidth=1.5)
    mistake = int(losses.argmax())
    place = (steps[mistake], losses[mistake])
    axes.annotate("the batch with wrong labels ", place, ha="right", va="top", fontsize=9)
    axes.set_yscale("log")
    axes.set_yticks([0.1, 1, 10], ["0.1", "1", "10"])
    axes.set_ylim(top=30)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend(ncols=2, frameon=False, fontsize=9, loc="upper left")
    save(figure, "logging")


def main() -> None:
    """Draw all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True, type=Path)
    data_dir = parser.parse_args().data_dir.resolve()
    draw_normalization(run_lesson("1-tensors", data_dir))
    draw_nonlinearity(run_lesson("2-nonlinearity", data_dir))
    draw_overfitting(run_lesson("4-overfitting", data_dir))
    draw_seeds(run_lesson("5-reproducibility", data_dir))
    draw_logging(run_lesson("6-logging", data_dir))


if __name__ == "__main__":
    main()
