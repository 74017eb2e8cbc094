"""The pictures of learn.md, computed by the code that it shows.

    python docs/learn_pictures.py --data_dir DATA

They go to docs/images; MNIST has to be in DATA.
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
INK = "#1f5fa8"
SEEN = 80  # steps, to tell two seeds apart


def save(figure: Figure, name: str) -> None:
    """Write a picture."""
    figure.savefig(FOLDER / f"learn_{name}.png", dpi=110, bbox_inches="tight")


def shown(axes: Axes, picture: Tensor, title: str = "") -> None:
    """Show ink on paper."""
    axes.imshow(picture, cmap="gray_r")
    axes.set_axis_off()
    axes.set_title(title, fontsize=9)


def tensor(picture: Tensor, label: int) -> None:
    """A digit, and the numbers that it is."""
    figure = Figure(figsize=(9, 4.2))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    shown(left, picture, f"label {label}")
    cut = picture[6:20, 6:20]
    right.imshow(cut, cmap="gray_r", alpha=0.35)
    for (row, column), value in zip(
        torch.ones_like(cut).nonzero().tolist(), cut.flatten().tolist(), strict=True
    ):
        right.text(column, row, value, ha="center", va="center", fontsize=7)
    right.set_axis_off()
    right.set_title("its middle, as numbers", fontsize=9)
    save(figure, "tensor")


def batch(images: Tensor, labels: Tensor) -> None:
    """The first images of a batch."""
    figure = Figure(figsize=(9, 2.1))
    for axes, image, label in zip(figure.subplots(2, 12).flat, images, labels, strict=False):
        shown(axes, image[0], str(int(label)))
    figure.tight_layout()
    save(figure, "batch")


def activations(network: ClassicCNN, image: Tensor) -> None:
    """What the first layers make of an image."""
    first, second = [], []
    with torch.no_grad():
        features = image.unsqueeze(0)
        for place, layer in enumerate(network.features):
            features = layer(features)
            if place == 2:
                first = list(features[0])
            if place == len(network.features) - 1:
                second = list(features[0])
    figure = Figure(figsize=(9, 2.6))
    rows = figure.subplots(3, 10)
    for axes, activation in zip(rows.flat, [*first, *second], strict=True):
        shown(axes, activation)
    rows[0, 0].set_title("10 activations of 12 x 12, then 20 of 4 x 4", fontsize=9, loc="left")
    save(figure, "activations")


def gradient(network: ClassicCNN, images: Tensor, labels: Tensor) -> None:
    """The loss over one weight, and its gradient as the slope."""
    weight = network.features[0].weight
    loss = functional.cross_entropy(network(images), labels)
    loss.backward()
    place = tuple((weight.grad.abs() == weight.grad.abs().max()).nonzero()[0].tolist())
    slope, now = float(weight.grad[place]), float(weight[place].detach())
    values = torch.linspace(now - 0.6, now + 0.6, 61)
    losses = []
    with torch.no_grad():
        for value in values:
            weight[place] = value
            losses.append(float(functional.cross_entropy(network(images), labels)))
        weight[place] = now
    figure = Figure(figsize=(5, 3))
    axes = figure.subplots()
    axes.plot(values, losses, color=INK, label="loss of the batch")
    near = values[18:43]
    axes.plot(
        near,
        loss.item() + slope * (near - now),
        color="black",
        linestyle="--",
        label=f"slope {slope:.2f}: the gradient",
    )
    axes.plot([now], [loss.item()], "o", color="black")
    axes.set_xlabel("one of 21,840 weights")
    axes.legend(frameon=False, fontsize=8)
    save(figure, "gradient")


def steps(batches: list[tuple[Tensor, Tensor]], seed: int, lr: float) -> Iterator[float]:
    """Train; give the loss of each step."""
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
    """The mean over 20 steps."""
    return torch.tensor(values).unfold(0, 20, 1).mean(dim=1)


def rates_and_seeds(batches: list[tuple[Tensor, Tensor]]) -> None:
    """The loss of the first steps, with several learning rates and with several seeds."""
    figure = Figure(figsize=(9, 3))
    left, right = figure.subplots(1, 2)
    for lr in (1e-5, 1e-3, 1e-1):
        left.plot(smooth(list(steps(batches, 1, lr))), label=f"learning rate {lr:g}")
    twice = [list(steps(batches, 1, 1e-3))[:SEEN] for _ in range(2)]
    assert twice[0] == twice[1]
    right.plot(twice[0], linewidth=5, alpha=0.4, label="seed 1")
    right.plot(twice[1], color="black", linewidth=1, label="seed 1, once more")
    right.plot(list(steps(batches[:SEEN], 2, 1e-3)), label="seed 2")
    left.set_ylabel("loss, mean over 20 steps")
    left.set_ylim(0, 3)
    right.set_ylabel("loss")
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.legend(frameon=False, fontsize=8)
    save(figure, "rates_and_seeds")


def main() -> None:
    """Draw all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True)
    data = MNISTDataModule("mnist", parser.parse_args().data_dir, seed=1)
    data.setup()
    tensor(data.data.train_images[0], int(data.data.train_labels[0]))
    loader = data.train_dataloader()
    batches = list(loader)
    images, labels = batches[0]
    batch(images, labels)
    torch.manual_seed(1)
    network = ClassicCNN().eval()
    gradient(network, images, labels)
    optimizer = torch.optim.Adam(network.parameters())
    for some, theirs in batches:
        optimizer.zero_grad()
        functional.cross_entropy(network(some), theirs).backward()
        optimizer.step()
    activations(network, images[0])
    rates_and_seeds(batches[:400])


if __name__ == "__main__":
    main()
