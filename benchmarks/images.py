"""How many images a second the ways of the data give, with nothing behind them.

    python benchmarks/images.py [--data_dir DATA] [--rounds 5] [--json FILE]

Epochs of MNIST's 60,000 training images in batches of 100, in turns: ours, plain and deformed, and
torchvision's data set with a DataLoader.
"""

import argparse
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, ToTensor
from turns import write

from mnist_lightning.data.augmentations import Deformation
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.data.loader import BatchDataset, BatchLoader
from mnist_lightning.preprocessing.normalization import MEAN, STD

BATCH_SIZE = 100


def main() -> None:
    """Count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", default="data", help="a folder with MNIST")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    asked = parser.parse_args()
    data = SOURCES["mnist"].load(Path(asked.data_dir))
    images, labels = data.train_images, data.train_labels
    usual = MNIST(asked.data_dir, transform=Compose([ToTensor(), Normalize(MEAN, STD)]))

    def ours(*augment: Deformation) -> BatchLoader:
        return BatchLoader(BatchDataset(images, labels, BATCH_SIZE, seed=0, augment=augment))

    loaders: dict[str, Iterable[Any]] = {
        "ours": ours(),
        "ours, affine": ours(Deformation()),
        "ours, affine and warp": ours(Deformation(warp=1.0)),
        "torchvision": DataLoader(usual, BATCH_SIZE, shuffle=True),
        "torchvision, 2 workers": DataLoader(usual, BATCH_SIZE, shuffle=True, num_workers=2),
    }
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(asked.rounds):
        for name, loader in loaders.items():
            started = time.perf_counter()
            count = sum(len(batch[1]) for batch in loader)
            rates[name].append(count / (time.perf_counter() - started))
    for name, taken in rates.items():
        print(f"{name:24}{statistics.median(taken):>12,.0f} images/s")
    write({"images_per_second": rates}, asked.json)


if __name__ == "__main__":
    main()
