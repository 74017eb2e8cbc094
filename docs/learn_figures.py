"""Draw the figures of learn.md, with the code that it contains.

    python docs/learn_figures.py --data_dir DATA

DATA must contain MNIST. The figures are written to docs/images.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from mnist_lightning import MNISTDataModule
from mnist_lightning.networks.classic_cnn import ClassicCNN

FOLDER = Path(__file__).parent / "images"
COLOR = "#1f5fa8"
COMPARED_STEPS = 80  # two seeds differ visibly in so many steps


def save(figure: Figure, name: str) -> None:
    """Save a figure as PNG."""
    figure.savefig(FOLDER / f"learn_{name}.png", dpi=110, bbox_inches="tight")


def show_image(axes: Axes, image: Tensor, title: str = "") -> None:
    """Show an image of ink, dark on light."""
    axes.imshow(image, cmap="gray_r")
    axes.set_axis_off()
    axes.set_title(title, fontsize=9)


def draw_tensor(image: Tensor, label: int) -> None:
    """Draw a digit, and the values of its middle."""
    figure = Figure(figsize=(9, 4.2))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    show_image(left, image, f"label {label}")
    middle = image[6:20, 6:20]
    right.imshow(middle, cmap="gray_r", alpha=0.35)
    for (row, column), value in zip(
        torch.ones_like(middle).nonzero().tolist(), middle.flatten().tolist(), strict=True
    ):
        right.text(column, row, value, ha="center", va="center", fontsize=7)
    right.set_axis_off()
    right.set_title("its middle, as numbers", fontsize=9)
    save(figure, "tensor")


def draw_batch(images: Tensor, labels: Tensor) -> None:
    """Draw the first images of a batch, with their labels."""
    figure = Figure(figsize=(9, 2.1))
    for axes, image, label in zip(figure.subplots(2, 12).flat, images, labels, strict=False):
        show_image(axes, image[0], str(int(label)))
    figure.tight_layout()
    save(figure, "batch")


def draw_activations(network: ClassicCNN, image: Tensor) -> None:
    """Draw the activations of both convolutions for an image."""
    first, second = [], []
    with torch.no_grad():
        features = image.unsqueeze(0)
        for index, layer in enumerate(network.features):
            features = layer(features)
            if index == 2:
                first = list(features[0])
            if index == len(network.features) - 1:
                second = list(features[0])
    figure = Figure(figsize=(9, 2.6))
    rows = figure.subplots(3, 10)
    for axes, activation in zip(rows.flat, [*first, *second], strict=True):
        show_image(axes, activation)
    rows[0, 0].set_title("10 activations of 12 x 12, then 20 of 4 x 4", fontsize=9, loc="left")
    save(figure, "activations")


def draw_gradient(network: ClassicCNN, images: Tensor, labels: Tensor) -> None:
    """Draw the loss as a function of one weight, and the gradient as its slope."""
    weight = network.features[0].weight
    loss = functional.cross_entropy(network(images), labels)
    loss.backward()
    index = tuple((weight.grad.abs() == weight.grad.abs().max()).nonzero()[0].tolist())
    slope, current = float(weight.grad[index]), float(weight[index].detach())
    values = torch.linspace(current - 0.6, current + 0.6, 61)
    losses = []
    with torch.no_grad():
        for value in values:
            weight[index] = value
            losses.append(float(functional.cross_entropy(network(images), labels)))
        weight[index] = current
    figure = Figure(figsize=(5, 3))
    axes = figure.subplots()
    axes.plot(values, losses, color=COLOR, label="loss of the batch")
    nearby = values[18:43]
    axes.plot(
        nearby,
        loss.item() + slope * (nearby - current),
        color="black",
        linestyle="--",
        label=f"slope {slope:.2f}: the gradient",
    )
    axes.plot([current], [loss.item()], "o", color="black")
    axes.set_xlabel("one of 21,840 weights")
    axes.legend(frameon=False, fontsize=8)
    save(figure, "gradient")


def train(batches: list[tuple[Tensor, Tensor]], seed: int, lr: float) -> Iterator[float]:
    """Train a network; yield the loss of each step."""
    torch.manual_seed(seed)
    network = ClassicCNN()
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    for images, labels in batches:
        loss = functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def smooth(values: list[float]) -> Tensor:
    """Return the means over 20 steps."""
    return torch.tensor(values).unfold(0, 20, 1).mean(dim=1)


def draw_rates_and_seeds(batches: list[tuple[Tensor, Tensor]]) -> None:
    """Draw the loss of the first steps for several learning rates and several seeds."""
    figure = Figure(figsize=(9, 3))
    left, right = figure.subplots(1, 2)
    for lr in (1e-5, 1e-3, 1e-1):
        left.plot(smooth(list(train(batches, 1, lr))), label=f"learning rate {lr:g}")
    repeated = [list(train(batches, 1, 1e-3))[:COMPARED_STEPS] for _ in range(2)]
    assert repeated[0] == repeated[1]
    right.plot(repeated[0], linewidth=5, alpha=0.4, label="seed 1")
    right.plot(repeated[1], color="black", linewidth=1, label="seed 1, once more")
    right.plot(list(train(batches[:COMPARED_STEPS], 2, 1e-3)), label="seed 2")
    left.set_ylabel("loss, mean over 20 steps")
    left.set_ylim(0, 3)
    right.set_ylabel("loss")
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.legend(frameon=False, fontsize=8)
    save(figure, "rates_and_seeds")


def main() -> None:
    """Draw all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True)
    data = MNISTDataModule("mnist", parser.parse_args().data_dir, seed=1)
    data.setup()
    draw_tensor(data.data.train_images[0], int(data.data.train_labels[0]))
    batches = list(data.train_dataloader())
    images, labels = batches[0]
    draw_batch(images, labels)
    torch.manual_seed(1)
    network = ClassicCNN().eval()
    draw_gradient(network, images, labels)
    optimizer = torch.optim.Adam(network.parameters())
    first_image = images[0]
    for images, labels in batches:
        optimizer.zero_grad()
        functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    draw_activations(network, first_image)
    draw_rates_and_seeds(batches[:400])


if __name__ == "__main__":
    main()
