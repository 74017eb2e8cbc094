"""Write the training digits that the web page compares a drawing with: 50 of each label of MNIST.

python docs/training_digits.py --data_dir DATA
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

from mnist_lightning.data import mnist_download
from mnist_lightning.deployment import neighbors


def main() -> None:
    """Write the image: the first digits of each label in the training set, ordered by label."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    images, labels, *_ = mnist_download.load(parser.parse_args().data_dir)
    chosen = [torch.nonzero(labels == label)[: neighbors.PER_LABEL, 0] for label in range(10)]
    digits = images[torch.cat(chosen)].view(-1, neighbors.COLUMNS, neighbors.SIZE, neighbors.SIZE)
    grid = digits.transpose(1, 2).flatten(0, 1).flatten(1)
    Image.fromarray(grid.numpy()).save(neighbors.FILE, optimize=True)


if __name__ == "__main__":
    main()
