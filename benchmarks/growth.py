"""Measure how time, memory and files grow with the work, and print the slope of each on log scales.

    python benchmarks/growth.py [--only photos runs] [--largest photos=100000] [--png growth.png]

A slope of 1 means that twice the work costs twice as much. A fixed cost, such as that of imports,
lowers the slope. Each measurement is a process of its own, in a new directory.

- images: arrays on the disk, read and split, and all batches of an epoch, without a network.
- photos: a folder of images of 280 pixels: the first start, the second one, and `predict`.
- runs: the commands `runs` and `runs --sort best`, and the RUN `best`.
- trials: the bookkeeping of a sweep with Optuna, without training.
- processes: two epochs of the bundled digits, trained by several processes.
- epochs: a run of the bundled digits, and the sizes of its files.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import numpy as np
import psutil

Costs = dict[str, float]
COUNTS = {
    "images": (10**4, 10**5, 10**6, 10**7),
    "photos": (10**2, 10**3, 10**4),
    "runs": (10, 10**2, 10**3, 10**4),
    "trials": (10, 10**2, 10**3),
    "processes": (1, 2, 4, 8),
    "epochs": (10, 10**2, 10**3),
}
FIT = ["-m", "mnist_lightning", "fit", "--data.dataset", "digits", "--model.network", "TinyCNN"]


@contextmanager
def timed(costs: Costs, name: str) -> Iterator[None]:
    """Add the seconds of a block to the costs."""
    start = time.perf_counter()
    yield
    costs[f"{name} [s]"] = time.perf_counter() - start


def private_megabytes() -> float:
    """Return the memory of this process that no other one shares; mapped files are shared."""
    return float(psutil.Process().memory_full_info().uss) / 1e6


def measure_images(count: int) -> Costs:
    """Read arrays on the disk, and prepare all batches of an epoch."""
    from mnist_lightning.data.datamodule import MNISTDataModule

    for part, images in (("train", count), ("t10k", 1000)):
        _write_arrays(Path(part), images)
    costs: Costs = {}
    data = MNISTDataModule(dataset="idx", folder=".", seed=0, val_size=0)
    with timed(costs, "start"):
        data.prepare_data()
        data.setup()
    batches = data.train_dataloader()
    with timed(costs, "batches"):
        for _ in batches:
            pass
    return costs | {"private memory [MB]": private_megabytes()}


def _write_arrays(part: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (1000, 28, 28), np.uint8).tobytes()
    with Path(f"{part}-images-idx3-ubyte").open("wb") as file:
        file.write(bytes([0, 0, 8, 3]) + np.array([count, 28, 28], ">i4").tobytes())
        for _ in range(count // 1000):
            file.write(images)
    with Path(f"{part}-labels-idx1-ubyte").open("wb") as file:
        file.write(bytes([0, 0, 8, 1]) + np.array([count], ">i4").tobytes())
        file.write((np.arange(count) % 10).astype(np.uint8).tobytes())


def draw_photos(folder: Path, count: int) -> None:
    """Draw digits as files of 280 pixels, in a folder for each label."""
    from PIL import Image

    from mnist_lightning.data.synthetic import draw_digits

    for start in range(0, count, 1000):
        images, labels = draw_digits(min(1000, count - start), start)
        for number, (ink, label) in enumerate(zip(images, labels, strict=True), start):
            place = folder / str(label) / f"{number:06}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            paper = Image.fromarray(255 - ink).resize((280, 280), Image.Resampling.BICUBIC)
            paper.save(place, compress_level=1)


def measure_photos(count: int) -> Costs:
    """Read a folder for training, twice; then predict its images."""
    os.environ["XDG_CACHE_HOME"] = str(Path("cache").absolute())
    draw_photos(Path("photos"), count)
    time.sleep(2.1)  # files that have just been written are read once more
    load = "from pathlib import Path; from mnist_lightning.data.image_folder import load_folder; "
    load += "import time; start = time.perf_counter(); load_folder(Path('photos'), 0.1); "
    load += "print(time.perf_counter() - start)"
    costs = {}
    for name in ("first start [s]", "second start [s]"):
        costs[name] = float(subprocess.check_output([sys.executable, "-c", load]))
    costs["cache [MB]"] = _size(Path("cache"))
    command = ["predict", "photos", "--run", "pretrained", "--output", "digits.jsonl"]
    return costs | run_command(["-m", "mnist_lightning", *command], "predict")


def measure_runs(count: int) -> Costs:
    """List the runs, and find the best one."""
    import many_runs

    many_runs.create_runs(Path("lightning_logs"), count)
    costs = {}
    for name in ("runs", "runs --sort best", "best"):
        many_runs.measure(name, Path(), many_runs.ROOT)  # fills the caches
        costs[f"{name} [s]"] = many_runs.measure(name, Path(), many_runs.ROOT)
    return costs


def measure_trials(count: int) -> Costs:
    """Create, suggest and record trials as a sweep does."""
    import optuna

    from mnist_lightning.tuning.search_space import Range, SearchSpace
    from mnist_lightning.tuning.study import StudyOptions, open_study
    from mnist_lightning.tuning.trial_queue import TrialQueue

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    costs: Costs = {}
    space = SearchSpace({"model.optimizer.lr": Range("log_uniform", (1e-4, 1e-1))})
    for sampler in ("random", "tpe"):
        folder = Path(sampler)
        folder.mkdir()
        how = StudyOptions("growth", None, sampler, "none", 0)
        study = open_study(how, folder, "", True, Event(), print)
        queue = TrialQueue(study, count, folder, space)
        with timed(costs, sampler):
            while (trial := queue.next()) is not None:
                values = space.suggest(trial)
                trial.report(0.5, 1)
                study.tell(trial, values["model.optimizer.lr"])
                queue.release(trial)
        costs[f"{sampler}, database [MB]"] = _size(folder / "study.db")
    return costs


def measure_processes(count: int) -> Costs:
    """Train in several processes."""
    several = ["--trainer.devices", str(count), "--trainer.strategy", "ddp"] if count > 1 else []
    short = ["--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--dashboards", "none"]
    return run_command([*FIT, *short, *several], "fit")


def measure_epochs(count: int) -> Costs:
    """Train, and measure the files of the run."""
    costs = run_command([*FIT, "--trainer.max_epochs", str(count)], "fit")
    run = Path("lightning_logs/version_0")
    costs["metrics.csv [MB]"] = _size(run / "metrics.csv")
    costs["TensorBoard [MB]"] = sum(_size(path) for path in run.glob("events*"))
    return costs | {"last checkpoint [MB]": _size(run / "checkpoints" / "last.ckpt")}


def _size(path: Path) -> float:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files) / 1e6


def run_command(arguments: list[str], name: str) -> Costs:
    """Run Python; return its seconds, and the largest memory of it and its child processes."""
    start, largest = time.perf_counter(), 0
    process = psutil.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            family = [process, *process.children(recursive=True)]
            largest = max(largest, sum(each.memory_full_info().pss for each in family))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            pass
        time.sleep(0.1)
    seconds = time.perf_counter() - start
    assert process.returncode == 0, arguments
    return {f"{name} [s]": seconds, f"{name}, memory [MB]": largest / 1e6}


MEASURES: dict[str, Callable[[int], Costs]] = {
    "images": measure_images,
    "photos": measure_photos,
    "runs": measure_runs,
    "trials": measure_trials,
    "processes": measure_processes,
    "epochs": measure_epochs,
}


def slope(counts: list[int], values: list[float]) -> float:
    """Return the slope of a line through the points on logarithmic scales."""
    return float(np.polyfit(np.log(counts), np.log(values), 1)[0])


def print_table(name: str, results: dict[int, Costs]) -> None:
    """Print the costs for each amount of work, and their slopes."""
    counts = list(results)
    print(f"{name:24}" + "".join(f"{count:>13,}" for count in counts) + f"{'slope':>9}")
    for cost in results[counts[0]]:
        values = [results[count][cost] for count in counts]
        row = "".join(f"{value:>13,.3f}" for value in values)
        print(f"{cost:24}{row}{slope(counts, values):>9.2f}")
    print(flush=True)


def plot(all_results: dict[str, dict[int, Costs]], path: Path) -> None:
    """Plot the costs on logarithmic scales."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(12, 7), layout="constrained")
    for place, (name, results) in zip(axes.flat, all_results.items(), strict=False):
        counts = list(results)
        for cost in results[counts[0]]:
            place.loglog(counts, [results[count][cost] for count in counts], "o-", label=cost)
        place.set_xticks(counts, [f"{count:,}" for count in counts])
        place.minorticks_off()
        place.set_title(name)
        place.legend(fontsize=7)
        place.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure each kind of work; print a table for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=[*COUNTS], default=[*COUNTS])
    parser.add_argument("--largest", nargs="+", default=[], metavar="NAME=N", help="other limits")
    parser.add_argument("--png", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        name, count = options.measure
        print("\n" + json.dumps(MEASURES[name](int(count))))
        return
    limits = dict(pair.split("=") for pair in options.largest)
    script = Path(__file__).resolve()
    all_results: dict[str, dict[int, Costs]] = {}
    for name in options.only:
        limit = int(limits.get(name, COUNTS[name][-1]))
        counts = [count for count in COUNTS[name] if count < limit] + [limit]
        for count in counts:
            with tempfile.TemporaryDirectory() as workspace:
                command = [sys.executable, str(script), "--measure", name, str(count)]
                output = subprocess.check_output(command, cwd=workspace, text=True)
                all_results.setdefault(name, {})[count] = json.loads(output.splitlines()[-1])
        print_table(name, all_results[name])
    if options.png is not None:
        plot(all_results, options.png)
    if options.json is not None:
        options.json.write_text(json.dumps(all_results, indent=2) + "\n")


if __name__ == "__main__":
    main()
