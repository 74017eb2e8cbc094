"""Compare a run in two processes with the same run in one: losses, test and time.

    python benchmarks/processes.py [--data_dir DATA] [--config configs/mlp.yaml]

Both train for three epochs on the CPU. The checkpoint of the run in two processes is tested by one
process and by two.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from mnist_lightning.runs.metrics_csv import METRICS_FILE, read_metrics
from mnist_lightning.runs.predictions_csv import read_predictions
from mnist_lightning.runs.run_directory import Run

CONFIG = Path(__file__).parent.parent / "configs" / "mlp.yaml"
TWO_PROCESSES = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]


def run_command(folder: Path, *arguments: str) -> None:
    """Run a command of this program on the CPU, in a folder."""
    command = [sys.executable, "-m", "mnist_lightning", *arguments, "--trainer.accelerator", "cpu"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def metric_by_step(run: Path, name: str) -> dict[int, float]:
    """Return the values of a metric by step."""
    return {
        int(row["step"]): float(row[name]) for row in read_metrics(run / METRICS_FILE) if row[name]
    }


def main() -> None:
    """Print the differences between the metrics and between the tests."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--config", type=Path, default=CONFIG)
    options = parser.parse_args()
    data = ["--data.data_dir", str(options.data_dir.resolve())]
    fit = ["fit", "--config", str(options.config.resolve()), *data, "--trainer.max_epochs", "3"]
    fit += ["--dashboards", "none"]
    with tempfile.TemporaryDirectory() as workspace:
        folder = Path(workspace)
        one, two = folder / "one", folder / "two"
        run_command(folder, *fit, "--run_dir", "one")
        run_command(folder, *fit, *TWO_PROCESSES, "--run_dir", "two")
        for name in ("train/step_loss", "train/loss", "val/loss", "val/accuracy"):
            expected, values = metric_by_step(one, name), metric_by_step(two, name)
            assert expected.keys() == values.keys()
            largest = max(abs(expected[step] - values[step]) / expected[step] for step in expected)
            print(f"{name}: {len(expected)} values, relative difference at most {largest:.1e}")
        for run in (one, two):
            summary = Run(run).summary()
            accuracy = summary["test/accuracy"]
            print(f"{run.name}: {summary['epoch_seconds']:.2f} s per epoch, accuracy {accuracy}")
        tables = []
        for processes in ([], TWO_PROCESSES):
            run_command(folder, "test", "two", *data, *processes)
            tables.append(read_predictions(Run(two).predictions))
        first, second = tables
        equal = (first.predicted == second.predicted).sum()
        print(f"tested by one process and by two: {equal:,} of {len(first.true):,} labels equal")
        accuracies = [(table.predicted == table.true).mean() for table in tables]
        print(f"test accuracy {accuracies[0]} and {accuracies[1]}")


if __name__ == "__main__":
    main()
