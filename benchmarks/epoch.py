"""An epoch of `fit` against a bare loop over tensors, and against torchvision's data set.

    python benchmarks/epoch.py [--data_dir DATA] [--config FILE] [--epochs 10] [--json FILE]

The contestants train the same network with the same optimizer, schedule and loss on the same
batches, and validate the same images:

- `fit`: the command, with its bar, logs and checkpoints;
- `bare`: nothing but the loop, over tensors in memory;
- `torchvision`: the bare loop over `torchvision.datasets.MNIST` with its usual transforms and a
  DataLoader, with no worker and with two; left out where the data is not MNIST.

Each is a process of its own. They take turns, an epoch each, so that a machine that is sometimes
slow is slow for all of them.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

USUAL = ("torchvision", "torchvision, 2 workers")


class Turns:
    """A contestant's side: waits for its turn, and tells how long it took."""

    def __init__(self) -> None:
        self.out = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
        self._started: float | None = None

    def next(self) -> None:
        """Call this where an epoch begins and the one before has ended."""
        seconds = 0.0 if self._started is None else time.perf_counter() - self._started
        print(seconds, file=self.out)
        sys.stdin.readline()
        self._started = time.perf_counter()


def fit(arguments: list[str], turns: Turns) -> None:
    """Run the command; its bar is drawn, into a file."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback

    from mnist_lightning import cli, parsing

    class TakeTurns(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            turns.next()

        def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            turns.next()

    make_trainer: Callable[..., Trainer] = parsing.DigitCLI.make_trainer

    def with_turns(self: Any, logger: Any = None, callbacks: Any = (), folder: Any = None) -> Any:
        return make_trainer(self, logger, [TakeTurns(), *callbacks], folder)

    parsing.DigitCLI.make_trainer = with_turns  # type: ignore[method-assign]
    os.environ["FORCE_COLOR"] = "1"
    with Path("printed").open("w") as printed, contextlib.redirect_stdout(printed):
        assert cli.fit(arguments) == 0


def bare(arguments: list[str], turns: Turns, usual_workers: int | None = None) -> None:
    """Train and validate with nothing around it; over torchvision's data set if asked to."""
    import torch

    from mnist_lightning.data.batches import epoch_order as order_of
    from mnist_lightning.data.batches import normalise
    from mnist_lightning.epoch_loop import stop_looking_for_gpus
    from mnist_lightning.parsing import DigitCLI, quieten

    quieten()
    stop_looking_for_gpus()
    cli = DigitCLI("fit", arguments)
    cli.load_data()
    data, model = cli.datamodule, cli.model
    images, labels = data.data.train_images, data.data.train_labels
    train, held_out = (images[part] for part in (data.train_indices, data.val_indices))
    train_labels, val_labels = (labels[part] for part in (data.train_indices, data.val_indices))
    size, epochs = data.batch_size, cli.config.trainer.max_epochs
    network = model.network
    optimizer = model.optimizer_factory(network.parameters())
    schedule: Any = None
    if model.lr_scheduler_factory is not None:
        steps = -(-len(train) // size) * epochs
        schedule = model.lr_scheduler_factory(optimizer, total_steps=steps)  # type: ignore[call-arg]
    mixed = torch.autocast("cpu", torch.bfloat16, cli.config.trainer.precision == "bf16-mixed")
    seed = cli.config.seed_everything

    def batches(epoch: int) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        order = order_of(len(train), seed, epoch)
        for start in range(0, len(train), size):
            chosen = order[start : start + size]
            yield normalise(train[chosen]), train_labels[chosen]

    def validation() -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        for start in range(0, len(held_out), data.eval_batch_size):
            part = slice(start, start + data.eval_batch_size)
            yield normalise(held_out[part]), val_labels[part]

    if usual_workers is not None:
        from torch.utils.data import DataLoader, Subset
        from torchvision.datasets import MNIST
        from torchvision.transforms import Compose, Normalize, ToTensor

        from mnist_lightning.images import MEAN, STD

        whole = MNIST(str(data.data_dir), transform=Compose([ToTensor(), Normalize(MEAN, STD)]))
        parts = [Subset(whole, part.tolist()) for part in (data.train_indices, data.val_indices)]
        shuffled = DataLoader(parts[0], size, shuffle=True, num_workers=usual_workers)
        in_order = DataLoader(parts[1], data.eval_batch_size, num_workers=usual_workers)
        batches = lambda epoch: shuffled  # noqa: E731 # one of two ways to the same
        validation = lambda: in_order  # noqa: E731 # the same

    for epoch in range(epochs):
        turns.next()
        network.train()
        for pixels, truth in batches(epoch):
            with mixed:
                loss = model.train_loss(network(pixels), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
        network.eval()
        right = torch.zeros((), dtype=torch.int64)
        with torch.inference_mode(), mixed:
            for pixels, truth in validation():
                right += (network(pixels).argmax(1) == truth).sum()
        right.item()
    turns.next()


def main() -> None:
    """Let the contestants take turns, and print what each of them took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", default="data", help="a folder with MNIST")
    parser.add_argument("--config", help="a configuration; by default fit's own")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--without", nargs="*", default=[], help="contestants to leave out")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    arguments = ["--data.dataset", "mnist", "--data.data_dir", str(Path(asked.data_dir).resolve())]
    arguments += ["--config", str(Path(asked.config).resolve())] if asked.config else []
    arguments += ["--trainer.max_epochs", str(asked.epochs)]
    if asked.contestant == "fit":
        fit(arguments, Turns())
    elif asked.contestant == "bare":
        bare(arguments, Turns())
    elif asked.contestant in USUAL:
        bare(arguments, Turns(), 2 * USUAL.index(asked.contestant))
    else:
        compete(asked)


def compete(asked: argparse.Namespace) -> None:
    """Start the contestants, give them their turns, and compare."""
    names = [name for name in ("bare", "fit", *USUAL) if name not in asked.without]
    command = [sys.executable, str(Path(__file__).resolve()), "--epochs", str(asked.epochs)]
    command += ["--data_dir", str(Path(asked.data_dir).resolve())]
    command += ["--config", str(Path(asked.config).resolve())] if asked.config else []
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        contestants = {}
        for name in names:
            contestants[name] = process = subprocess.Popen(
                [*command, "--contestant", name],
                cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert process.stdout is not None
            process.stdout.readline()  # it is ready for its first epoch
        for _ in range(asked.epochs):
            for name, process in contestants.items():
                assert process.stdin is not None
                assert process.stdout is not None
                print("go", file=process.stdin, flush=True)
                seconds[name].append(float(process.stdout.readline()))
        for process in contestants.values():
            process.communicate("go\n")
    show(seconds, asked)


def show(seconds: dict[str, list[float]], asked: argparse.Namespace) -> None:
    """Print the medians and their ratios to the bare loop's."""
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    print(f"{asked.config or 'the default configuration'}, {asked.epochs} epochs each, in turns")
    print(f"{'':24}{'median':>10}{'fastest':>10}{'against bare':>15}")
    for name, median in medians.items():
        ratio = median / medians["bare"]
        print(f"{name:24}{median:>8.3f} s{min(seconds[name]):>8.3f} s{ratio:>15.3f}")
    if asked.json:
        figures = {"epochs": asked.epochs, "config": asked.config, "seconds": seconds}
        asked.json.write_text(json.dumps({**figures, "medians": medians}, indent=2) + "\n")


if __name__ == "__main__":
    main()
