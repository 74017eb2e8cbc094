"""An epoch of `fit` against a bare loop over tensors, and against torchvision's data set.

    python benchmarks/epoch.py [--data_dir DATA] [--config FILE] [--epochs 10] [--json FILE]

All train the same network with the same optimizer, schedule and loss on batches of the same size,
and validate the same images:

- `fit`: the command, with its bar, logs and checkpoints, from the start of an epoch to that of the
  next;
- `fit, no dashboards`: the same with `--dashboards none`;
- `bare`: nothing but the loop, over tensors in memory; the same batches as `fit`;
- `torchvision`: the bare loop over `torchvision.datasets.MNIST` with its usual transforms and a
  DataLoader, without workers and with two.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, ToTensor
from turns import Turns, compete, table, write

from mnist_lightning.cli import fit
from mnist_lightning.cli.lightning_cli import DigitCLI, ExperimentParser, configure_warnings
from mnist_lightning.data.loader import epoch_order
from mnist_lightning.preprocessing.normalization import MEAN, STD, normalize
from mnist_lightning.training.fast_epoch_loop import disable_nvml_check

Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]
PLAIN = "fit, no dashboards"
WORKERS = {"torchvision": 0, "torchvision, 2 workers": 2}


class TakeTurns(Callback):
    """An epoch of `fit` is a turn."""

    turns: Turns
    started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the epoch before, and begin the next."""
        seconds = time.perf_counter() - TakeTurns.started
        self.turns.hand_over(seconds)
        TakeTurns.started = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the last epoch."""
        self.turns.hand_over(time.perf_counter() - TakeTurns.started)


def bare(arguments: list[str], turns: Turns, workers: int | None) -> None:
    """Train and validate with nothing around it; over torchvision's data set with `workers`."""
    configure_warnings()
    disable_nvml_check()
    parsed = DigitCLI(ExperimentParser("fit"), arguments)
    parsed.load_data()
    train, validation = tensors(parsed) if workers is None else usual(parsed, workers)
    model, settings = parsed.model, parsed.config.trainer
    network, criterion = model.network, model.train_loss
    optimizer = model.optimizer_factory(network.parameters())
    schedule: Any = None
    if model.schedule_needs_run_length:
        length = settings.limit_train_batches or parsed.datamodule.train_batches
        steps = int(length) * settings.max_epochs
        schedule = model.lr_scheduler_factory(optimizer, total_steps=steps)  # type: ignore[misc, call-arg] # it has one
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16-mixed")
    seconds = 0.0
    for epoch in range(settings.max_epochs):
        turns.hand_over(seconds)
        started = time.perf_counter()
        network.train()
        for index, (images, labels) in enumerate(train(epoch)):
            if index == settings.limit_train_batches:
                break
            with mixed:
                loss = criterion(network(images), labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            if schedule is not None:
                schedule.step()
        network.eval()
        right = torch.zeros((), dtype=torch.int64)
        with torch.inference_mode(), mixed:
            for images, labels in validation(epoch):
                right += (network(images).argmax(1) == labels).sum()
        right.item()
        seconds = time.perf_counter() - started
    turns.hand_over(seconds)


def tensors(parsed: DigitCLI) -> tuple[Batches, Batches]:
    """Batches of training and validation, cut from tensors in memory."""
    data, seed = parsed.datamodule, parsed.config.seed_everything
    images, labels = data.data.train_images, data.data.train_labels
    train, held_out = images[data.train_indices], images[data.val_indices]
    train_labels, val_labels = labels[data.train_indices], labels[data.val_indices]

    def training(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in torch.split(epoch_order(len(train), seed, epoch), data.batch_size):
            yield normalize(train[chosen]), train_labels[chosen]

    def validation(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        size = data.eval_batch_size
        images = map(normalize, torch.split(held_out, size))
        yield from zip(images, torch.split(val_labels, size), strict=True)

    return training, validation


def usual(parsed: DigitCLI, workers: int) -> tuple[Batches, Batches]:
    """Batches of training and validation, by torchvision and a DataLoader."""
    data = parsed.datamodule
    whole = MNIST(str(data.data_dir), transform=Compose([ToTensor(), Normalize(MEAN, STD)]))
    train, held_out = (
        Subset(whole, part.tolist()) for part in (data.train_indices, data.val_indices)
    )
    shuffled = DataLoader(train, data.batch_size, shuffle=True, num_workers=workers)
    in_order = DataLoader(held_out, data.eval_batch_size, num_workers=workers)
    return lambda epoch: iter(shuffled), lambda epoch: iter(in_order)


def main() -> None:
    """Let the contestants take turns, and print what each of them took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", default="data", help="a folder with MNIST")
    parser.add_argument("--config", help="a configuration; by default fit's own")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=["bare", "fit", *WORKERS])
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    data_dir = str(Path(asked.data_dir).resolve())
    config = ["--config", str(Path(asked.config).resolve())] if asked.config else []
    if asked.contestant is None:
        again = ["--data_dir", data_dir, *config, "--epochs", str(asked.epochs)]
        seconds = compete(asked.only, asked.epochs, again)
        print(f"{asked.config or 'default configuration'}: {asked.epochs} epochs each, in turns")
        table(seconds, against="bare")
        write({"config": asked.config, "seconds": seconds}, asked.json)
        return
    turns = Turns()
    arguments = [*config, "--data.dataset", "mnist", "--data.data_dir", data_dir]
    arguments += ["--trainer.max_epochs", str(asked.epochs)]
    if asked.contestant.startswith("fit"):
        TakeTurns.turns = turns
        level = "none" if asked.contestant == PLAIN else "basic"
        arguments += ["--dashboards", level]
        assert fit.main([*arguments, "--trainer.callbacks+", "__main__.TakeTurns"]) == 0
    else:
        bare(arguments, turns, WORKERS.get(asked.contestant))


if __name__ == "__main__":
    main()
