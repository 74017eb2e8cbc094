"""Time the training to 99 % test accuracy: `configs/speedrun.yaml`, and a published recipe.

    python benchmarks/time_to_99.py [--data_dir DATA] [--seeds 10] [--json FILE]

The recipe (github.com/tuomaso/train_mnist_fast, 99.04 % in 0.76 s on a GTX 1660 Ti): two
convolutions of 24 and 32 channels with pooling, and 256 hidden units; Adam at 0.01 with betas 0.7
and 0.9; OneCycle; one epoch of all 60,000 images in batches of 256. Here it is a plain loop in
channels-last memory. The time of `fit` includes validation, progress bar, logs and checkpoints.

Both alternate, one seed per round. The accuracy is that of the weights after the last step, on the
10,000 test images. No choice depends on these images.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from alternation import RoundReporter, print_table, run_alternately, write_json
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn

from mnist_lightning.cli import fit
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.preprocessing.normalization import normalize
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.training.fast_epoch_loop import disable_nvml_check

SPEEDRUN = Path(__file__).parent.parent / "configs" / "speedrun.yaml"


class TrainingTimer(Callback):
    """Measures the time from the start of training to its end, when the checkpoints are saved."""

    seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the timer."""
        TrainingTimer.seconds = -time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the timer."""
        TrainingTimer.seconds += time.perf_counter()


def train_speedrun(data_dir: str, seeds: int, reporter: RoundReporter) -> None:
    """Train `configs/speedrun.yaml` by `fit`, once per seed."""
    arguments = ["--config", str(SPEEDRUN), "--data.dataset", "mnist", "--data.data_dir", data_dir]
    result = None
    for seed in range(seeds):
        reporter.report(result)
        seeded = ["--seed_everything", str(seed), "--trainer.callbacks+", "__main__.TrainingTimer"]
        assert fit.main([*arguments, *seeded]) == 0
        accuracy = Run(Path(f"lightning_logs/version_{seed}")).summary()["test/accuracy"]
        result = {"seconds": TrainingTimer.seconds, "accuracy": accuracy}
    reporter.report(result)


def train_recipe(data_dir: str, seeds: int, reporter: RoundReporter) -> None:
    """Train the published recipe, once per seed."""
    disable_nvml_check()
    data = SOURCES["mnist"].load(Path(data_dir))
    result = None
    for seed in range(seeds):
        reporter.report(result)
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
        start = time.perf_counter()
        for indices in torch.split(torch.randperm(60_000), 256):
            logits = network(normalize(data.train_images[indices]))
            loss = nn.functional.cross_entropy(logits, data.train_labels[indices])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
        seconds = time.perf_counter() - start
        network.eval()
        with torch.inference_mode():
            batches = torch.split(data.test_images, 200)
            predicted = torch.cat([network(normalize(batch)).argmax(1) for batch in batches])
        accuracy = float((predicted == data.test_labels).double().mean())
        result = {"seconds": seconds, "accuracy": accuracy}
    reporter.report(result)


def main() -> None:
    """Run both variants alternately, and print their times and accuracies."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", default="data", help="a folder with MNIST")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    data_dir = str(Path(options.data_dir).resolve())
    variants = {"recipe": train_recipe, "speedrun": train_speedrun}
    if options.variant is not None:
        variants[options.variant](data_dir, options.seeds, RoundReporter())
        return
    arguments = ["--data_dir", data_dir, "--seeds", str(options.seeds)]
    results = run_alternately(list(variants), options.seeds, arguments)
    seconds = {name: [each["seconds"] for each in rounds] for name, rounds in results.items()}
    print_table(seconds, baseline="recipe")
    for name, rounds in results.items():
        accuracies = [100 * each["accuracy"] for each in rounds]
        mean, spread = statistics.mean(accuracies), statistics.stdev(accuracies)
        print(f"{name}: test accuracy {mean:.3f} ± {spread:.3f} % ({options.seeds} seeds)")
    write_json({"rounds": results}, options.json)


if __name__ == "__main__":
    main()
