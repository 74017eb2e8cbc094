"""Sweeps in processes, killed and continued."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState

from mnist_lightning.runs import run_directory
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.tuning.trial_queue import TrialQueue
from tests.conftest import Command
from tests.tuning.conftest import SWEEP, create_study, read_trials, start_sweep

pytestmark = pytest.mark.slow


def test_a_sweep_killed_twice_continues_after_failed_trials(sweep_folder: Path) -> None:
    study = create_study(sweep_folder)
    owner = TrialQueue(study, 6, sweep_folder / "lightning_logs" / "sweeps" / "space").owner
    for rate in (0.01, -1.0, 0.003, 0.01, -1.0, 0.003):
        values = {"model.optimizer.init_args.lr": rate}
        study.enqueue_trial(values, user_attrs={"owner": owner})
    counts = ("--trials", "6", "--workers", "2", "--pruner", "none")
    for kill, num_runs in ((os.killpg, 1), (os.kill, 3)):
        sweep = start_sweep(sweep_folder, *counts)
        # Kill it within a trial.
        while len(list(run_directory.list_runs(sweep_folder / "lightning_logs"))) < num_runs:
            assert sweep.poll() is None
            time.sleep(0.05)
        time.sleep(2)
        kill(sweep.pid, signal.SIGKILL)
        sweep.wait()
        if sweep.stdout is not None:
            sweep.stdout.close()
    sweep = start_sweep(sweep_folder, *counts)
    printed, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 0, printed
    trials = read_trials(sweep_folder)
    states = Counter(trial.state for trial in trials)
    assert states.keys() <= {TrialState.COMPLETE, TrialState.FAIL}
    assert states.total() == 6
    used = [trial.user_attrs["run"] for trial in trials]
    assert len(set(used)) == 6
    existing = set(map(str, Path("lightning_logs").resolve().glob("version_*")))
    assert existing >= set(used)
    # A sweep that is killed before it marks a new folder leaves the folder empty.
    assert [path for folder in existing - set(used) for path in Path(folder).iterdir()] == []
    failures = [t.user_attrs["error"] for t in trials if t.state == TrialState.FAIL]
    assert set(failures) == {"status 2: --model.optimizer: Invalid learning rate: -1.0"}
    for trial in trials:
        failed = trial.params["model.optimizer.init_args.lr"] < 0
        assert (trial.state == TrialState.FAIL) == failed
        if not failed:
            summary = Run(sweep_folder / trial.user_attrs["run"]).summary()
            assert trial.value == summary["val/accuracy"]
            assert "test/accuracy" not in summary
    assert re.search(r"6 trials: \d finished, \d failed", printed)
    folder = sweep_folder / "lightning_logs" / "sweeps" / "space"
    assert (folder / "history.png").read_bytes()[:4] == b"\x89PNG"
    best = max(trial.value or 0 for trial in trials if trial.state == TrialState.COMPLETE)
    assert_reproduces(folder / "best.yaml", sweep_folder, best)


def assert_reproduces(config: Path, folder: Path, accuracy: float) -> None:
    """Check that a configuration reproduces the run of a trial, and tests it."""
    fit = [sys.executable, "-m", "mnist_lightning", "fit", "--config", str(config)]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // 2))}  # as the trials had
    again = [*fit, "--run_dir", "again"]
    subprocess.run(again, cwd=folder, check=True, capture_output=True, env=os.environ | threads)
    summary = Run(folder / "again").summary()
    assert summary["val/accuracy"] == accuracy
    assert summary["test/total"] == 297


def test_a_terminal_shows_a_live_table_of_the_trials(sweep_folder: Path) -> None:
    (sweep_folder / "space.yaml").write_text("model.network: {choice: [MultilayerPerceptron]}\n")
    parent, child = pty.openpty()
    sweep = subprocess.Popen(
        [sys.executable, "-m", "mnist_lightning", *SWEEP, "--trials", "2"],
        cwd=sweep_folder,
        stdout=child,
        stderr=child,
        start_new_session=True,
        env=os.environ | {"COLUMNS": "100", "TERM": "xterm"},
    )
    os.close(child)
    output = b""
    with contextlib.suppress(OSError):  # raised on Linux when the terminal is closed
        while chunk := os.read(parent, 10_000):
            output += chunk
    text = output.decode()
    assert sweep.wait(300) == 0, text
    for count in range(3):
        assert f"{count} of 2 trials" in text
    _, _, last = text.rpartition("2 of 2 trials")
    assert "MultilayerPerceptron" in last
    assert "2 trials: 2 finished" in last


def test_an_interrupted_sweep_prints_how_to_continue(sweep_folder: Path) -> None:
    sweep = start_sweep(sweep_folder, "--trials", "2", "--storage", "study.journal")
    while not any(Path("lightning_logs").glob("version_*/config.yaml")):
        assert sweep.poll() is None
        time.sleep(0.05)
    sweep.send_signal(signal.SIGTERM)
    printed, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 143
    assert "1 to be continued" in printed
    assert "Repeat the command to continue" in printed
    assert (sweep_folder / "study.journal").is_file()


def test_mistakes_are_reported_before_any_trial(command: Command, sweep_folder: Path) -> None:
    for words, message in (
        (SWEEP, ""),
        (["sweep", "--config", "base.yaml"], "--space"),
        ([*SWEEP, "--trials", "0"], "--trials and --workers must be at least 1"),
        ([*SWEEP, "--data.batchsize", "3"], "unknown option --data.batchsize"),
        ([*SWEEP, "--storage", "nowhere"], "--storage nowhere cannot be used: expected a URL"),
        ([*SWEEP, "--pruner", "shears"], "--pruner: invalid value shears"),
        ([*SWEEP, "--seeds", "1..2"], "--seeds needs --configs"),
        ([*SWEEP, "--trainer.max_epochs", "-1"], "A sweep needs runs of limited length"),
    )[1:]:
        result = command(*words)
        assert result.status != 0
        assert message in result.err
    (sweep_folder / "space.yaml").write_text("model.label_smothing: {uniform: [0, 1]}")
    error = command(*SWEEP).err
    assert "unknown option model.label_smothing; did you mean model.label_smoothing?" in error
    assert list(run_directory.list_runs(sweep_folder / "lightning_logs")) == []


def test_a_name_cannot_be_used_with_another_space(command: Command, sweep_folder: Path) -> None:
    create_study(sweep_folder).set_user_attr("made_with", "something else")
    assert "already exists with another space or other options" in command(*SWEEP).err


def test_equal_failures_end_the_sweep(command: Command, sweep_folder: Path) -> None:
    study = create_study(sweep_folder)
    for _ in range(3):
        study.enqueue_trial({"model.optimizer.init_args.lr": -1.0})
    result = command(*SWEEP, "--trials", "9")
    assert result.status == 1
    assert "3 trials in a row failed with the same error: status 2: --model" in result.err
    assert len(read_trials(sweep_folder)) == 3


def test_a_trial_with_parameters_outside_the_space_is_not_trained(sweep_folder: Path) -> None:
    study = create_study(sweep_folder)
    study.enqueue_trial({"model.optimizer.init_args.lr": 7.0})
    sweep = start_sweep(sweep_folder, "--trials", "1")
    printed, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    assert "No trial finished" in printed
    (trial,) = read_trials(sweep_folder)
    assert trial.user_attrs["error"] == "its parameters are outside the space"


def test_sweeps_in_different_folders_share_a_study(command: Command, sweep_folder: Path) -> None:
    shared = [*SWEEP, "--storage", "study.journal", "--trainer.default_root_dir"]
    (sweep_folder / "space.yaml").write_text("model.network: {choice: [MultilayerPerceptron]}\n")
    for number, options in enumerate((["a"], ["b", f"--data.data_dir={sweep_folder}"])):
        result = command(*shared, *options, "--trials", str(number + 1))
        assert result.status == 0, result.err
        (run,) = run_directory.list_runs(sweep_folder / options[0] / "lightning_logs")
        assert run.summary()["state"] == "finished"
