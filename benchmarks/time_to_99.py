"""Seconds to 99 %: `configs/speedrun.yaml` by `fit`, against the published recipe as a bare loop.

    python benchmarks/time_to_99.py [--data_dir DATA] [--seeds 10] [--json FILE]

The recipe (github.com/tuomaso/train_mnist_fast, 0.76 s on a GTX 1660 Ti for 99.04 %) has two pooled
convolutions of 24 and 32 channels and 256 hidden units; Adam at 0.01 with betas 0.7 and 0.9,
OneCycle, one epoch of all 60,000 images in batches of 256; here in channels-last memory and with
nothing around it. `fit` has everything: validation, bar, logs, checkpoints, all within its time.

Both take turns, a seed each, and are scored by the weights after their last step on the 10,000 test
images, which were used to choose nothing.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn
from turns import Turns, compete, table, write

from mnist_lightning.cli import fit
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.preprocessing.normalization import normalize
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.training.fast_epoch_loop import disable_nvml_check

SPEEDRUN = Path(__file__).parent.parent / "configs" / "speedrun.yaml"


class Watch(Callback):
    """Takes the time from a training's start to its end, checkpoints saved."""

    seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        Watch.seconds = -time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        Watch.seconds += time.perf_counter()


def speedrun(data_dir: str, seeds: int, turns: Turns) -> None:
    """Run the command, once for each seed."""
    arguments = ["--config", str(SPEEDRUN), "--data.dataset", "mnist", "--data.data_dir", data_dir]
    result = None
    for seed in range(seeds):
        turns.hand_over(result)
        seeded = ["--seed_everything", str(seed), "--trainer.callbacks+", "Watch"]
        assert fit.main([*arguments, *seeded]) == 0
        accuracy = Run(Path(f"lightning_logs/version_{seed}")).summary()["test/accuracy"]
        result = {"seconds": Watch.seconds, "accuracy": accuracy}
    turns.hand_over(result)


def recipe(data_dir: str, seeds: int, turns: Turns) -> None:
    """Train the published recipe, once for each seed."""
    disable_nvml_check()
    data = SOURCES["mnist"].load(Path(data_dir))
    result = None
    for seed in range(seeds):
        turns.hand_over(result)
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(1, 24, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(24, 32, 3), nn.MaxPool2d(2), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 5 * 5, 256), nn.ReLU(), nn.Linear(256, 10),
        ).to(memory_format=torch.channels_last)  # fmt: skip
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01, betas=(0.7, 0.9), fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.01, total_steps=235, cycle_momentum=False
        )
        started = time.perf_counter()
        for chosen in torch.split(torch.randperm(60_000), 256):
            logits = network(normalize(data.train_images[chosen]))
            loss = nn.functional.cross_entropy(logits, data.train_labels[chosen])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
        seconds = time.perf_counter() - started
        network.eval()
        with torch.inference_mode():
            batches = torch.split(data.test_images, 200)
            predicted = torch.cat([network(normalize(batch)).argmax(1) for batch in batches])
        accuracy = float((predicted == data.test_labels).double().mean())
        result = {"seconds": seconds, "accuracy": accuracy}
    turns.hand_over(result)


def main() -> None:
    """Let the two take turns, and print seconds and accuracies."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", default="data", help="a folder with MNIST")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    data_dir = str(Path(asked.data_dir).resolve())
    contestants = {"recipe": recipe, "speedrun": speedrun}
    if asked.contestant is not None:
        contestants[asked.contestant](data_dir, asked.seeds, Turns())
        return
    again = ["--data_dir", data_dir, "--seeds", str(asked.seeds)]
    results = compete(list(contestants), asked.seeds, again)
    table({name: [turn["seconds"] for turn in turns] for name, turns in results.items()}, "recipe")
    for name, turns in results.items():
        accuracies = [100 * turn["accuracy"] for turn in turns]
        mean, spread = statistics.mean(accuracies), statistics.stdev(accuracies)
        print(f"{name}: test accuracy {mean:.3f} ± {spread:.3f} % ({asked.seeds} seeds)")
    write({"turns": results}, asked.json)


if __name__ == "__main__":
    main()
