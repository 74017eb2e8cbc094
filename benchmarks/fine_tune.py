"""What `configs/my_handwriting.yaml` gains from half of a person's pictures, and what it forgets.

    python benchmarks/fine_tune.py --data_dir DATA RUN

`DATA/photos` holds pictures and their `labels.csv` (file, label), `DATA` MNIST. Of each source with
at least ten pictures every other one is trained on; the others, and MNIST's test, are read before
and after.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mnist_lightning import load
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.runs import lookup, run_directory

CONFIG = Path(__file__).parent.parent / "configs" / "my_handwriting.yaml"
LEAST = 10


def right(run: Path, files: list[Path], labels: list[int]) -> int:
    """Count the images that a run predicts correctly."""
    recognizer = load(run)
    read = [recognizer.read(mnist_format.read(file), multiple=False)[0].label for file in files]
    return sum(one == other for one, other in zip(read, labels, strict=True))


def work(*arguments: str) -> None:
    """Run a command."""
    subprocess.run([sys.executable, "-m", "mnist_lightning", *arguments], check=True, stdout=-3)


def main() -> None:
    """Print a line a source."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--data_dir", type=Path, required=True)
    asked = parser.parse_args()
    run, _ = lookup.find(asked.run, Path(run_directory.LOGS_FOLDER))
    folder = asked.data_dir.resolve() / "photos"
    with (folder / "labels.csv").open() as file:
        rows = [(folder / row["file"], int(row["label"])) for row in csv.DictReader(file)]
    before = run.summary()["test/correct"]
    for source in sorted({path.parent.name for path, _ in rows}):
        own = [row for row in rows if row[0].parent.name == source]
        if len(own) < LEAST:
            continue
        with tempfile.TemporaryDirectory() as place:
            for path, label in own[::2]:
                (Path(place) / "mine" / str(label)).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, Path(place) / "mine" / str(label) / path.name)
            options = ["--data.folder", f"{place}/mine", "--data.test_share", "0"]
            options += ["--data.data_dir", str(asked.data_dir), "--dashboards", "none"]
            options += ["--trainer.default_root_dir", place]
            work("fit", "--config", str(CONFIG), "--init_from", str(run.folder), *options)
            tuned = Path(place) / "lightning_logs" / "version_0"
            data = ["--data.dataset", "mnist", "--data.data_dir", str(asked.data_dir)]
            work("test", str(tuned), *data)
            with (tuned / "checkpoints" / "best.mnist.csv").open() as file:
                after = sum(row["true"] == row["predicted"] for row in csv.DictReader(file))
            seconds = json.loads((tuned / "summary.json").read_text())["fit_seconds"]
            files, labels = [path for path, _ in own[1::2]], [label for _, label in own[1::2]]
            counts = f"{right(run.folder, files, labels)} -> {right(tuned, files, labels)}"
        print(
            f"{source}: trained on {len(own[::2])}; the other {len(files)}: {counts} right; "
            f"MNIST {before:,} -> {after:,} of 10,000; {seconds:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
