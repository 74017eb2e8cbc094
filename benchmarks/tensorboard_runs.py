"""Measure how long TensorBoard takes until it lists many runs, and the memory it then needs.

    python benchmarks/tensorboard_runs.py [--counts 100 1000 10000] [--event_file FILE]
        [--options --load_fast=false]

Each run is a copy of one event file: the given one, or the curves of ten epochs. The time ends when
the server lists the tags of all runs. It listens on this machine only.
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
from torch.utils.tensorboard import SummaryWriter

EPOCHS = 10
TAGS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr")
MAX_SECONDS = 600


def create_runs(root: Path, count: int, event_file: Path | None) -> None:
    """Create run directories with an event file each."""
    first = root / "version_0"
    if event_file is None:
        with SummaryWriter(str(first)) as writer:
            for epoch in range(EPOCHS):
                for tag in TAGS:
                    writer.add_scalar(tag, 1 / (1 + epoch), epoch)
    else:
        first.mkdir()
        shutil.copy(event_file, first)
    for version in range(1, count):
        shutil.copytree(first, root / f"version_{version}")


def listed_runs(address: str) -> int:
    """Return of how many runs the server lists curves; 0 if it does not answer yet."""
    url = f"{address}/data/plugin/scalars/tags"
    try:
        with urllib.request.urlopen(url, timeout=MAX_SECONDS) as response:
            return len(json.load(response))
    except (urllib.error.URLError, ConnectionError):
        return 0


def memory(process: subprocess.Popen[bytes]) -> int:
    """Return the resident bytes of a process and its children."""
    parent = psutil.Process(process.pid)
    return sum(each.memory_info().rss for each in (parent, *parent.children(recursive=True)))


def measure(folder: Path, count: int, options: list[str]) -> None:
    """Start TensorBoard, wait until it lists so many runs, print the time and memory, end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*program, "--host", "127.0.0.1", "--port", str(port), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address, first, listed = f"http://127.0.0.1:{port}", 0.0, 0
        while listed < count and time.perf_counter() - start < MAX_SECONDS:
            time.sleep(0.2)
            listed = listed_runs(address)
            first = first or (time.perf_counter() - start if listed else 0.0)
        seconds = time.perf_counter() - start
        time.sleep(1)
        size = memory(process) / 1e6
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.terminate()
        process.terminate()
        process.wait()
    print(
        f"{listed:>6,} of {count:>6,} runs after {seconds:6.1f} s "
        f"(the first after {first:.1f} s), {size:,.0f} MB",
        flush=True,
    )


def main() -> None:
    """Print the time and memory for each number of runs, and for one of the runs alone."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--event_file", type=Path, metavar="FILE", help="of a run")
    help_text = "further options of TensorBoard"
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help=help_text)
    options = parser.parse_args()
    for count in options.counts:
        with tempfile.TemporaryDirectory() as folder:
            create_runs(Path(folder), count, options.event_file)
            measure(Path(folder), count, options.options)
            measure(Path(folder) / "version_0", 1, options.options)


if __name__ == "__main__":
    main()
