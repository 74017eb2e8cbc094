"""Measure the effect of fine-tuning on a person's images and on MNIST.

    python benchmarks/fine_tune.py --data_dir DATA RUN

`DATA/photos` contains images and `labels.csv` (file, label); `DATA` contains MNIST. For each source
of at least ten images, `configs/my_handwriting.yaml` trains on every other image. The remaining
images and MNIST's test set are evaluated before and after.
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
MIN_IMAGES = 10


def count_correct(run: Path, rows: list[tuple[Path, int]]) -> int:
    """Count the images that a run predicts correctly."""
    recognizer = load(run)
    return sum(
        recognizer.read(mnist_format.read(path), multiple=False)[0].label == label
        for path, label in rows
    )


def run_command(*arguments: str) -> None:
    """Run a command of this program."""
    command = [sys.executable, "-m", "mnist_lightning", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Print the number of correct images per source, before and after."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--data_dir", type=Path, required=True)
    options = parser.parse_args()
    run, _ = lookup.find(options.run, Path(run_directory.LOGS_FOLDER))
    folder = options.data_dir.resolve() / "photos"
    with (folder / "labels.csv").open() as file:
        rows = [(folder / row["file"], int(row["label"])) for row in csv.DictReader(file)]
    mnist_before = run.summary()["test/correct"]
    for source in sorted({path.parent.name for path, _ in rows}):
        source_rows = [row for row in rows if row[0].parent.name == source]
        if len(source_rows) < MIN_IMAGES:
            continue
        train_rows, test_rows = source_rows[::2], source_rows[1::2]
        with tempfile.TemporaryDirectory() as workspace:
            train_folder = Path(workspace) / "images"
            for path, label in train_rows:
                (train_folder / str(label)).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, train_folder / str(label) / path.name)
            fit = ["--data.folder", str(train_folder), "--data.test_share", "0"]
            fit += ["--data.data_dir", str(options.data_dir), "--dashboards", "none"]
            fit += ["--trainer.default_root_dir", workspace]
            run_command("fit", "--config", str(CONFIG), "--init_from", str(run.folder), *fit)
            tuned = Path(workspace) / "lightning_logs" / "version_0"
            data = ["--data.dataset", "mnist", "--data.data_dir", str(options.data_dir)]
            run_command("test", str(tuned), *data)
            with (tuned / "checkpoints" / "best.mnist.csv").open() as file:
                mnist_after = sum(row["true"] == row["predicted"] for row in csv.DictReader(file))
            seconds = json.loads((tuned / "summary.json").read_text())["fit_seconds"]
            before, after = count_correct(run.folder, test_rows), count_correct(tuned, test_rows)
        print(
            f"{source}: trained on {len(train_rows)} images in {seconds:.0f} s; "
            f"correct of the other {len(test_rows)}: {before} before, {after} after; "
            f"correct of MNIST's 10,000: {mnist_before:,} before, {mnist_after:,} after",
            flush=True,
        )


if __name__ == "__main__":
    main()
