"""Train on arrays that are larger than the memory; compare speed and weights with enough memory.

    sudo python benchmarks/large_data.py --data_dir DATA [--images 10000000] [--limit_gb 4]
        [--batches 5000] [--rounds 3]

The arrays are shifted images of MNIST, in a temporary directory (`--folder`, 0.8 GB per million).
Each run is a process: with all images in the memory of the system, or in a control group with a
limit, after the images were removed from memory. A control group needs root and Linux.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mnist_lightning.data import mnist_download
from mnist_lightning.runs.run_directory import Run

GROUPS = Path("/sys/fs/cgroup")
NAME = "mnist_lightning_large_data"
BLOCK = 50_000  # images


def write_arrays(folder: Path, data_dir: Path, count: int) -> None:
    """Write shifted images of MNIST in its format; the test images are MNIST's."""
    images, labels, *test = (each.numpy() for each in mnist_download.load(data_dir))
    generator = np.random.default_rng(0)
    with (
        (folder / "train-images-idx3-ubyte").open("wb") as image_file,
        (folder / "train-labels-idx1-ubyte").open("wb") as label_file,
    ):
        image_file.write(header(count, 28, 28))
        label_file.write(header(count))
        for start in range(0, count, BLOCK):
            rows = generator.integers(0, len(images), min(BLOCK, count - start))
            shift = tuple(generator.integers(-2, 3, 2))
            image_file.write(np.roll(images[rows], shift, (1, 2)).tobytes())
            label_file.write(labels[rows].astype(np.uint8).tobytes())
    (folder / "t10k-images-idx3-ubyte").write_bytes(header(*test[0].shape) + test[0].tobytes())
    labels_content = header(len(test[1])) + test[1].astype(np.uint8).tobytes()
    (folder / "t10k-labels-idx1-ubyte").write_bytes(labels_content)


def header(*shape: int) -> bytes:
    """Return the start of an IDX file of bytes."""
    return bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()


def make_group(limit: int) -> Path:
    """Create a control group with a limit of memory, page cache included; return its directory."""
    is_second_version = (GROUPS / "cgroup.controllers").exists()
    group = GROUPS / NAME if is_second_version else GROUPS / "memory" / NAME
    group.mkdir(exist_ok=True)
    file = "memory.max" if is_second_version else "memory.limit_in_bytes"
    (group / file).write_text(str(limit))
    return group


def train(run: Path, folder: Path, options: Sequence[str], group: Path | None) -> float:
    """Train one epoch; return the images per second."""
    with (folder / "train-images-idx3-ubyte").open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while group is None and file.read(2**24):
            pass
    own = ["--data.dataset", "idx", "--data.folder", str(folder), "--trainer.max_epochs", "1"]
    command = ["fit", *own, "--run_dir", str(run), "--dashboards", "none", *options]

    def enter() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    subprocess.run(
        [sys.executable, "-m", "mnist_lightning", *command],
        check=True,
        stdout=subprocess.DEVNULL,
        preexec_fn=enter,
    )
    summary = Run(run).summary()
    state = torch.load(Run(run).recent(), weights_only=True)
    batches = state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["completed"]
    return float(100 * batches / summary["epoch_seconds"])


def main() -> None:
    """Print the images per second with enough memory and with a limit, and compare the weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--images", type=int, default=10**7)
    parser.add_argument("--limit_gb", type=float, default=4)
    parser.add_argument("--batches", type=int, help="of an epoch; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for the arrays; reused if it contains them")
    options, rest = parser.parse_known_args()
    if options.batches is not None:
        rest += ["--trainer.limit_train_batches", str(options.batches)]
    group = make_group(int(options.limit_gb * 2**30))
    with tempfile.TemporaryDirectory() as workspace:
        folder = options.folder or Path(workspace)
        folder.mkdir(exist_ok=True)
        if not (folder / "t10k-labels-idx1-ubyte").exists():
            write_arrays(folder, options.data_dir, options.images)
        ratios = []
        for number in range(options.rounds):
            runs = [Path(workspace, f"{kind}_{number}") for kind in ("memory", "disk")]
            free = train(runs[0], folder, rest, None)
            limited = train(runs[1], folder, rest, group)
            ratios.append(limited / free)
            states = [torch.load(Run(run).recent(), weights_only=True) for run in runs]
            first, second = (state["state_dict"] for state in states)
            equal = all(torch.equal(first[name], second[name]) for name in first)
            print(f"{free:>10,.0f}{limited:>10,.0f} images/s  ratio {ratios[-1]:.3f}", end="  ")
            print(f"weights {'equal' if equal else 'DIFFERENT'}", flush=True)
        print(f"median ratio {statistics.median(ratios):.3f}")
    group.rmdir()


if __name__ == "__main__":
    main()
