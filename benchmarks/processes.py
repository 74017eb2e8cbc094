"""A run in two processes beside the same in one: its curve, its test, its time.

python benchmarks/processes.py [--data_dir DATA] [--config configs/mlp.yaml]
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from mnist_lightning.runs.metrics_csv import METRICS_FILE, read_metrics, read_predictions
from mnist_lightning.runs.run_directory import Run

CONFIG = Path(__file__).parent.parent / "configs" / "mlp.yaml"
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]


def work(folder: Path, *arguments: str) -> None:
    """Run a command."""
    command = [sys.executable, "-m", "mnist_lightning", *arguments, "--trainer.accelerator", "cpu"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def curve(run: Path, name: str) -> dict[int, float]:
    """A metric by step."""
    return {
        int(row["step"]): float(row[name]) for row in read_metrics(run / METRICS_FILE) if row[name]
    }


def main() -> None:
    """Print how far the curves differ, and whether the tests do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--config", type=Path, default=CONFIG)
    asked = parser.parse_args()
    data = ["--data.data_dir", str(asked.data_dir.resolve())]
    fit = ["fit", "--config", str(asked.config.resolve()), *data, "--trainer.max_epochs", "3"]
    fit += ["--dashboards", "none"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        work(folder, *fit, "--run_dir", "one")
        work(folder, *fit, *TWO, "--run_dir", "two")
        for name in ("train/step_loss", "train/loss", "val/loss", "val/accuracy"):
            one, two = curve(folder / "one", name), curve(folder / "two", name)
            assert one.keys() == two.keys()
            largest = max(abs(one[step] - two[step]) / one[step] for step in one)
            print(f"{name}: {len(one)} values, relative difference at most {largest:.1e}")
        for name in ("one", "two"):
            seconds = Run(folder / name).summary()["epoch_seconds"]
            accuracy = Run(folder / name).summary()["test/accuracy"]
            print(f"{name}: {seconds:.2f} s an epoch, test accuracy {accuracy}")
        kept = Run(folder / "two").predictions
        tables = []
        for processes in ([], TWO):
            work(folder, "test", "two", *data, *processes)
            tables.append(read_predictions(kept))
        first, second = tables
        same = (first.predicted == second.predicted).sum()
        print(f"tested by one and by two: {same:,} of {len(first.true):,} labels equal")
        right = [(table.predicted == table.true).mean() for table in tables]
        print(f"test accuracy {right[0]} and {right[1]}")


if __name__ == "__main__":
    main()
