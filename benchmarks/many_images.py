"""Read a large folder of images for training, and with `predict`: on one core, and on all cores.

    python benchmarks/many_images.py --data_dir DATA [--images 100000] [--part 2000] [--rounds 3]

The images are MNIST's, enlarged to 280 pixels. A part of them is read alternately on one core and
on all; the whole folder is read once on all cores, then without changes, then after one change.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil
from PIL import Image

from mnist_lightning.data import mnist_download

SCRIPT = """
import json, sys, time
from pathlib import Path
from mnist_lightning.data.image_folder import load_folder
from mnist_lightning.preprocessing import mnist_format
read, count = mnist_format.read_content, []
mnist_format.read_content = lambda source: (count.append(1), read(source))[1]
start = time.perf_counter()
data, _ = load_folder(Path(sys.argv[1]), 0.15)
print(json.dumps([time.perf_counter() - start, len(count), data.checksum]))
"""


def write_images(folder: Path, data_dir: Path, count: int) -> None:
    """Write enlarged images of MNIST, in a folder for each label; above 60,000, shifted copies."""
    with ProcessPoolExecutor() as pool:
        starts = range(0, count, 1000)
        jobs = [
            pool.submit(_write_part, folder, data_dir, start, min(start + 1000, count))
            for start in starts
        ]
        for job in jobs:
            job.result()


def _write_part(folder: Path, data_dir: Path, start: int, end: int) -> None:
    images, labels, *_ = mnist_download.load(data_dir)
    for index in range(start, end):
        row, shift = index % len(images), index // len(images)
        ink = images[row].roll(shift, 0).numpy()
        place = folder / str(int(labels[row])) / f"{index:06}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        paper = Image.fromarray(255 - ink).resize((280, 280), Image.Resampling.BICUBIC)
        paper.save(place, compress_level=1)


def run(arguments: list[str], cache: Path, one_core: bool) -> tuple[float, float, str]:
    """Run Python; return its seconds, the memory of its own process in MB, and its output."""
    cores = sorted(os.sched_getaffinity(0))[:1] if one_core else os.sched_getaffinity(0)
    start, largest = time.perf_counter(), 0
    process = psutil.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": str(len(cores))},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    while process.poll() is None:
        try:
            largest = max(largest, process.memory_info().rss)
        except psutil.Error:
            break
        time.sleep(0.2)
    output = process.communicate()[0]
    assert process.returncode == 0, arguments
    return time.perf_counter() - start, largest / 1e6, output


def load(folder: Path, cache: Path, one_core: bool = False) -> tuple[float, int, str]:
    """Read a folder for training; return the seconds, the number of files read, the checksum."""
    output = run(["-c", SCRIPT, str(folder)], cache, one_core)[2]
    seconds, files, checksum = json.loads(output)
    return seconds, files, checksum


def compare_cores(files: list[Path], workspace: Path, rounds: int) -> None:
    """Read a part of the images on one core and on all cores, alternately."""
    part = workspace / "part"
    for file in files:
        place = part / file.parent.name / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(file)
    for name in ("training", "predict"):
        ratios, memory = [], 0.0
        for number in range(rounds):
            seconds = []
            for one_core in (True, False):
                place = workspace / f"{name}_{number}_{one_core}"
                if name == "training":
                    seconds.append(load(part, place, one_core)[0])
                else:
                    output = ["--output", str(place), "--run", "pretrained"]
                    command = ["-m", "mnist_lightning", "predict", str(part), *output]
                    spent, memory, _ = run(command, place, one_core)
                    seconds.append(spent)
            ratios.append(seconds[0] / seconds[1])
            speeds = [len(files) / each for each in seconds]
            print(
                f"{name:10}{len(files):>8,} images: {speeds[0]:.1f} images/s on one core, "
                f"{speeds[1]:.1f} on all, ratio {ratios[-1]:.2f}",
                flush=True,
            )
        print(f"{name:10} median ratio {statistics.median(ratios):.2f}", end="")
        print(f", memory of the process {memory:.0f} MB" if memory else "", flush=True)


def main() -> None:
    """Print the speeds, and what is read at the second start and after a change."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--part", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for the images; reused if it exists")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        workspace = Path(name)
        folder = (options.folder or workspace / "images").absolute()
        if not folder.exists():
            write_images(folder, options.data_dir.absolute(), options.images)
        files = sorted(folder.rglob("*.png"))
        compare_cores(random.Random(0).sample(files, options.part), workspace, options.rounds)
        cache = workspace / "cache"
        changed = files[len(files) // 2]
        former = changed.read_bytes()
        for label in ("first start", "second start", "after one change"):
            if label == "after one change":
                changed.write_bytes(files[0].read_bytes())
            seconds, read, _ = load(folder, cache)
            print(f"{label:18}{seconds:>9.1f} s, {read:,} files read", flush=True)
        changed.write_bytes(former)


if __name__ == "__main__":
    main()
