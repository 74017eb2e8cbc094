"""Kill a sweep twice, let it finish, and check its trials and its best configuration.

    python benchmarks/sweep.py --data_dir DATA [--trials 30] [--workers 2]

First the sweep and all its processes are killed (kill -9), then only the sweep process, while its
trials continue. Then the sweep runs to the end. Each trial trains the multilayer perceptron for
three epochs.
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


def start_sweep(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start or continue the sweep, in a process group of its own."""
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            [*PROGRAM, "sweep", *arguments],
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def main() -> None:
    """Print the trials of the sweep, and train again with its best configuration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    fit = ["--config", str(CONFIG.resolve()), "--data.data_dir", str(options.data_dir.resolve())]
    fit += ["--trainer.max_epochs", EPOCHS, "--dashboards", "none"]
    with tempfile.TemporaryDirectory() as workspace:
        folder = Path(workspace)
        (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
        counts = ["--trials", str(options.trials), "--workers", str(options.workers)]
        arguments = [*fit, "--space", "space.yaml", *counts]
        start = time.perf_counter()
        for kill in (os.killpg, os.kill):
            process = start_sweep(arguments, folder)
            time.sleep(random.uniform(15, 40))
            kill(process.pid, signal.SIGKILL)
            process.wait()
        status = start_sweep(arguments, folder).wait()
        seconds = time.perf_counter() - start
        assert status == 0, (folder / "output").read_text()
        database = folder / LOGS_FOLDER / "sweeps" / "space" / "study.db"
        trials = optuna.load_study(study_name="space", storage=f"sqlite:///{database}").trials
        states = collections.Counter(trial.state.name.lower() for trial in trials)
        print(f"{len(trials)} trials in {seconds:.0f} s: {dict(states)}")
        trial_runs = {trial.user_attrs["run"] for trial in trials}
        num_runs = sum(1 for _ in list_runs(folder / LOGS_FOLDER))
        print(f"{len(trial_runs)} runs of trials, {num_runs} runs in total")
        completed = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        best = max(completed, key=lambda trial: trial.value or 0)
        print(f"best: trial {best.number}, val/accuracy {best.value:.4f}, {best.params}")
        config = ["--config", str(database.with_name("best.yaml"))]
        for name, arguments in (("default", fit), ("best.yaml", config)):
            threads = str(max(1, (os.cpu_count() or 1) // options.workers))  # as in a trial
            environment = os.environ | {"OMP_NUM_THREADS": threads}
            command = [*PROGRAM, "fit", *arguments, "--run_dir", name]
            subprocess.run(
                command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=environment
            )
            accuracy = Run(folder / name).summary()["val/accuracy"]
            print(f"{name}: val/accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
