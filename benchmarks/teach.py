"""Measure what `serve --teach` learns from few corrected digits, what it forgets, and its time.

    python benchmarks/teach.py --data_dir DATA RUN [--counts 1,5,20,100] [--without_mnist]

`DATA/photos` contains images and `labels.csv` (file, label); `DATA` contains MNIST. There are two
sources of digits, neither of which is part of MNIST's validation or test images:

- photos: every other photo can be corrected, and the remaining ones are read afterwards
- slanted: MNIST's first training images, turned by 40 degrees; 1,000 others are read afterwards

A person corrects misread digits first. With `--without_mnist`, the server does not find MNIST.
"""

import argparse
import csv
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mnist_lightning import Recognizer, load
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.data.splits import split
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.normalization import normalize
from mnist_lightning.runs.run_directory import LOGS_FOLDER

DEGREES = 40.0
CANDIDATES, OTHERS = 2_000, 1_000


@dataclass(frozen=True)
class Digits:
    """Images (N, 28, 28) and their labels (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __getitem__(self, rows: slice | NDArray[np.intp]) -> "Digits":
        return Digits(self.images[rows], self.labels[rows])


def read_photos(folder: Path) -> tuple[Digits, Digits]:
    """Return the photos that can be corrected, and the others."""
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    images = [mnist_format.from_image(mnist_format.read(folder / row["file"])) for row in rows]
    digits = Digits(np.stack(images), np.array([int(row["label"]) for row in rows]))
    return digits[::2], digits[1::2]


def slant(data_dir: Path) -> tuple[Digits, Digits]:
    """Return turned training images of MNIST: some to correct, and others."""
    data = SOURCES["mnist"].load(data_dir)
    train, _ = split(len(data.train_labels), 5_000, seed=0)
    rows = train[: CANDIDATES + OTHERS]
    images = [
        mnist_format.from_image(Image.fromarray(255 - image).rotate(DEGREES, fillcolor=255))
        for image in data.train_images[rows].numpy()
    ]
    digits = Digits(np.stack(images), data.train_labels[rows].numpy())
    return digits[:CANDIDATES], digits[CANDIDATES:]


def correct(recognizer: Recognizer, digits: Digits) -> NDArray[np.bool_]:
    """Return which digits are read correctly (N,)."""
    inputs = normalize(torch.from_numpy(digits.images))
    probabilities = torch.cat([recognizer.probabilities(part) for part in inputs.split(200)])
    is_correct: NDArray[np.bool_] = probabilities.numpy().argmax(axis=1) == digits.labels
    return is_correct


def teach(run: str, digits: Digits, data_dir: Path, folder: Path) -> tuple[Path, float, str]:
    """Teach a server some digits; return the new run, the seconds and the summary."""
    command = [sys.executable, "-m", "mnist_lightning", "serve", run, "--teach", "--port", "0"]
    command += ["--data.data_dir", str(data_dir), "--trainer.default_root_dir", str(folder)]
    command += ["--collect", str(folder / "digits")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        match = re.search(r"http://\S+", server.stdout.readline())
        assert match is not None
        with httpx.Client(base_url=match[0], timeout=60) as client:
            for image, label in zip(digits.images, digits.labels, strict=True):
                content = mnist_format.png(image)
                client.post(f"/api/corrections?label={label}", content=content).raise_for_status()
            start = time.monotonic()
            client.post("/api/learn").raise_for_status()
            while (state := client.get("/api/learn").json())["state"] == "running":
                time.sleep(0.2)
            seconds = time.monotonic() - start
        server.send_signal(signal.SIGINT)
    assert state["state"] == "finished", state["message"]
    return folder / LOGS_FOLDER / state["run"], seconds, state["comparison"]["summary"]


def main() -> None:
    """Print a row for each source and each number of corrected digits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--counts", default="1,5,20,100")
    parser.add_argument("--sources", default="photos,slanted")
    parser.add_argument("--without_mnist", action="store_true")
    options = parser.parse_args()
    data_dir = options.data_dir.resolve()
    mnist = SOURCES["mnist"].load(data_dir)
    test = Digits(mnist.test_images.numpy(), mnist.test_labels.numpy())
    before = load(options.run)
    found = {"photos": lambda: read_photos(data_dir / "photos"), "slanted": lambda: slant(data_dir)}
    for source in options.sources.split(","):
        candidates, others = found[source]()
        read = correct(before, candidates)
        order = np.argsort(read, kind="stable")  # misread digits first
        for count in map(int, options.counts.split(",")):
            taught = candidates[order[:count]]
            with tempfile.TemporaryDirectory() as name:
                place = Path(name) if options.without_mnist else data_dir
                run, seconds, summary = teach(options.run, taught, place, Path(name))
                after = load(run)
            counts = [
                f"{int(correct(before, part).sum()):,} -> {int(correct(after, part).sum()):,} "
                f"of {len(part.labels):,}"
                for part in (taught, others, test)
            ]
            print(
                f"{source}, {count} digits: {seconds:.0f} s; these {counts[0]}; other {source} "
                f"{counts[1]}; MNIST's test images {counts[2]}\n  {summary}",
                flush=True,
            )


if __name__ == "__main__":
    main()
