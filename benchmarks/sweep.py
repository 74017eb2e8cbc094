"""A sweep that is killed twice: what it records, and what it finds.

    python benchmarks/sweep.py --data_dir DATA [--trials 30] [--workers 2]

First the sweep and all its processes are killed (kill -9), then the sweep alone, whose processes
live on; then it comes to its end. The space is of the multilayer perceptron, three epochs long.
"""

import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
import yaml
from optuna.trial import TrialState

from mnist_lightning.runs.run_directory import LOGS_FOLDER, Run, list_runs

CONFIG = Path(__file__).parent.parent / "configs" / "mlp.yaml"
SPACE = {
    "model.optimizer.init_args.lr": {"log_uniform": [1e-3, 1.0]},
    "model.optimizer.init_args.momentum": {"choice": [0.0, 0.5, 0.9]},
    "data.batch_size": {"choice": [16, 32, 64, 128]},
}
EPOCHS = "3"
PROGRAM = [sys.executable, "-m", "mnist_lightning"]


def accuracy(folder: Path) -> float:
    """A run's highest val/accuracy."""
    value: float = Run(folder).summary()["val/accuracy"]
    return value


def sweep(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start the sweep, in a group of its own."""
    with (folder / "printed").open("ab") as printed:
        return subprocess.Popen(
            [*PROGRAM, "sweep", *arguments],
            cwd=folder,
            stdout=printed,
            stderr=printed,
            start_new_session=True,
        )


def main() -> None:
    """Print what is recorded after two kills, and what the best trial is worth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    fit = ["--config", str(CONFIG.resolve()), "--data.data_dir", str(asked.data_dir.resolve())]
    fit += ["--trainer.max_epochs", EPOCHS, "--dashboards", "none"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
        counts = ["--trials", str(asked.trials), "--workers", str(asked.workers)]
        arguments = [*fit, "--space", "space.yaml", *counts]
        began = time.perf_counter()
        for kill in (os.killpg, os.kill):
            process = sweep(arguments, folder)
            time.sleep(random.uniform(15, 40))
            kill(process.pid, signal.SIGKILL)
            process.wait()
        status = sweep(arguments, folder).wait()
        seconds = time.perf_counter() - began
        assert status == 0, (folder / "printed").read_text()
        database = folder / LOGS_FOLDER / "sweeps" / "space" / "study.db"
        trials = optuna.load_study(study_name="space", storage=f"sqlite:///{database}").trials
        states = collections.Counter(trial.state.name.lower() for trial in trials)
        used = [trial.user_attrs["run"] for trial in trials]
        print(f"status {status}; {len(trials)} trials in {seconds:.0f} s: {dict(states)}")
        count = sum(1 for _ in list_runs(folder / LOGS_FOLDER))
        print(f"{len(set(used))} runs of theirs, {count} in all")
        best = max(
            (t for t in trials if t.state == TrialState.COMPLETE), key=lambda t: t.value or 0
        )
        print(f"best: trial {best.number}, val/accuracy {best.value:.4f}, {best.params}")
        config = ["--config", str(database.with_name("best.yaml"))]
        for name, options in (("default", fit), ("best.yaml", config)):
            threads = str(max(1, (os.cpu_count() or 1) // asked.workers))  # as the trials have
            environment = os.environ | {"OMP_NUM_THREADS": threads}
            command = [*PROGRAM, "fit", *options, "--run_dir", name]
            subprocess.run(command, cwd=folder, check=True, stdout=-3, env=environment)
            print(f"{name}: val/accuracy {accuracy(folder / name):.4f}")


if __name__ == "__main__":
    main()
