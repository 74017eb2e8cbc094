"""Measure how many images per second the data pipelines load, without any training.

    python benchmarks/images.py [--data_dir DATA] [--rounds 5] [--json FILE]

Each pipeline loads the 60,000 training images of MNIST in batches of 100: that of this project,
with and without augmentation, and torchvision's data set with a DataLoader. The pipelines
alternate.
"""

import argparse
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alternation import write_json
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, ToTensor

from mnist_lightning.data.augmentations import Deformation
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.data.loader import BatchDataset, BatchLoader
from mnist_lightning.preprocessing.normalization import MEAN, STD

BATCH_SIZE = 100


def main() -> None:
    """Print the median rate of each pipeline."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", default="data", help="a folder with MNIST")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    data = SOURCES["mnist"].load(Path(options.data_dir))
    images, labels = data.train_images, data.train_labels
    dataset = MNIST(options.data_dir, transform=Compose([ToTensor(), Normalize(MEAN, STD)]))

    def batch_loader(*augment: Deformation) -> BatchLoader:
        return BatchLoader(BatchDataset(images, labels, BATCH_SIZE, seed=0, augment=augment))

    loaders: dict[str, Iterable[Any]] = {
        "mnist_lightning": batch_loader(),
        "with affine": batch_loader(Deformation()),
        "with affine and warp": batch_loader(Deformation(warp=1.0)),
        "torchvision": DataLoader(dataset, BATCH_SIZE, shuffle=True),
        "torchvision, 2 workers": DataLoader(dataset, BATCH_SIZE, shuffle=True, num_workers=2),
    }
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(options.rounds):
        for name, loader in loaders.items():
            start = time.perf_counter()
            count = sum(len(batch[1]) for batch in loader)
            rates[name].append(count / (time.perf_counter() - start))
    for name, values in rates.items():
        print(f"{name:24}{statistics.median(values):>12,.0f} images/s")
    write_json({"images_per_second": rates}, options.json)


if __name__ == "__main__":
    main()
