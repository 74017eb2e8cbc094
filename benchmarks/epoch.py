"""Time an epoch of `fit`, of a loop over tensors, and of a loop over torchvision's data set.

    python benchmarks/epoch.py [--data_dir DATA] [--config FILE] [--epochs 10] [--json FILE]

All variants train the same network with the same optimizer, schedule, loss and batch size, and
validate on the same images:

- `fit`: the command, with its progress bar, logs and checkpoints, from the start of an epoch to
  the start of the next;
- `fit, no dashboards`: the same with `--dashboards none`;
- `fit, no snapshots`: the same without the snapshot after each epoch;
- `bare`: only the loop, over tensors in memory, with the same batches as `fit`; therefore a config
  with augmentations, or without validation images, is refused;
- `torchvision`: the bare loop over `torchvision.datasets.MNIST` with its usual transforms and a
  DataLoader, without workers and with two.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from alternation import RoundReporter, print_table, run_alternately, write_json
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, ToTensor

from mnist_lightning.cli import fit
from mnist_lightning.cli.framework_messages import configure_warnings
from mnist_lightning.cli.lightning_cli import DigitCLI, ExperimentParser
from mnist_lightning.data.loader import epoch_order
from mnist_lightning.preprocessing.normalization import MEAN, STD, normalize
from mnist_lightning.training.callbacks.epoch_snapshots import EpochSnapshots
from mnist_lightning.training.fast_epoch_loop import disable_nvml_check

Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]
NO_DASHBOARDS, NO_SNAPSHOTS = "fit, no dashboards", "fit, no snapshots"
WORKERS = {"torchvision": 0, "torchvision, 2 workers": 2}


class EpochTimer(Callback):
    """Reports the time of each epoch of `fit` as a round."""

    reporter: RoundReporter
    start = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the last epoch, and start the next."""
        self.reporter.report(time.perf_counter() - EpochTimer.start)
        EpochTimer.start = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the last epoch."""
        self.reporter.report(time.perf_counter() - EpochTimer.start)


def train_bare(arguments: list[str], reporter: RoundReporter, workers: int | None) -> None:
    """Train and validate in a plain loop, over tensors or, with `workers`, torchvision's data."""
    configure_warnings()
    disable_nvml_check()
    cli = DigitCLI(ExperimentParser("fit"), arguments)
    cli.load_data()
    if cli.datamodule.augment or not len(cli.datamodule.val_indices):
        raise SystemExit("give a config without augmentations, and with validation images")
    batches = tensor_batches(cli) if workers is None else torchvision_batches(cli, workers)
    train_batches, val_batches = batches
    model, settings = cli.model, cli.config.trainer
    network, criterion = model.network, model.train_loss
    optimizer = model.optimizer_factory(network.parameters())
    schedule: Any = None
    if model.schedule_needs_run_length:
        length = settings.limit_train_batches or cli.datamodule.train_batches
        steps = int(length) * settings.max_epochs
        schedule = model.lr_scheduler_factory(optimizer, total_steps=steps)  # type: ignore[misc, call-arg] # it has one
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16-mixed")
    seconds = 0.0
    for epoch in range(settings.max_epochs):
        reporter.report(seconds)
        start = time.perf_counter()
        network.train()
        for index, (images, labels) in enumerate(train_batches(epoch)):
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
        correct = torch.zeros((), dtype=torch.int64)
        with torch.inference_mode(), mixed:
            for images, labels in val_batches(epoch):
                correct += (network(images).argmax(1) == labels).sum()
        correct.item()
        seconds = time.perf_counter() - start
    reporter.report(seconds)


def tensor_batches(cli: DigitCLI) -> tuple[Batches, Batches]:
    """Return the training and validation batches as slices of tensors in memory."""
    data, seed = cli.datamodule, cli.config.seed_everything
    images, labels = data.data.train_images, data.data.train_labels
    train_images, val_images = images[data.train_indices], images[data.val_indices]
    train_labels, val_labels = labels[data.train_indices], labels[data.val_indices]

    def train_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = epoch_order(len(train_images), seed, epoch)
        for indices in torch.split(order, data.batch_size):
            yield normalize(train_images[indices]), train_labels[indices]

    def val_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        size = data.eval_batch_size
        images = map(normalize, torch.split(val_images, size))
        yield from zip(images, torch.split(val_labels, size), strict=True)

    return train_batches, val_batches


def torchvision_batches(cli: DigitCLI, workers: int) -> tuple[Batches, Batches]:
    """Return the training and validation batches of torchvision's data set and a DataLoader."""
    data = cli.datamodule
    dataset = MNIST(str(data.data_dir), transform=Compose([ToTensor(), Normalize(MEAN, STD)]))
    train_set, val_set = (
        Subset(dataset, indices.tolist()) for indices in (data.train_indices, data.val_indices)
    )
    train_loader = DataLoader(train_set, data.batch_size, shuffle=True, num_workers=workers)
    val_loader = DataLoader(val_set, data.eval_batch_size, num_workers=workers)
    return lambda epoch: iter(train_loader), lambda epoch: iter(val_loader)


def run_variant(name: str, arguments: list[str]) -> None:
    """Train one variant in this process, an epoch per round."""
    reporter = RoundReporter()
    if name.startswith("fit"):
        EpochTimer.reporter = reporter
        arguments += ["--dashboards", "none" if name == NO_DASHBOARDS else "basic"]
        if name == NO_SNAPSHOTS:
            for hook in ("on_train_start", "on_validation_end", "on_train_epoch_end"):
                setattr(EpochSnapshots, hook, lambda *_: None)
        assert fit.main([*arguments, "--trainer.callbacks+", "__main__.EpochTimer"]) == 0
    else:
        train_bare(arguments, reporter, WORKERS.get(name))


def main() -> None:
    """Run the variants alternately, and print their seconds per epoch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", default="data", help="a folder with MNIST")
    parser.add_argument("--config", help="a configuration; by default that of fit")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=["bare", "fit", *WORKERS])
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    data_dir = str(Path(options.data_dir).resolve())
    config = ["--config", str(Path(options.config).resolve())] if options.config else []
    if options.variant is not None:
        arguments = [*config, "--data.dataset", "mnist", "--data.data_dir", data_dir]
        run_variant(options.variant, [*arguments, "--trainer.max_epochs", str(options.epochs)])
        return
    arguments = ["--data_dir", data_dir, *config, "--epochs", str(options.epochs)]
    seconds = run_alternately(options.only, options.epochs, arguments)
    print(f"{options.config or 'default configuration'}: {options.epochs} epochs each, alternately")
    print_table(seconds, baseline="bare")
    write_json({"config": options.config, "seconds": seconds}, options.json)


if __name__ == "__main__":
    main()
