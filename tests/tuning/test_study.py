"""Sweeps with real trials in real processes, killed and continued."""

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
from threading import Event
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from mnist_lightning.runs import run_directory
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.tuning import results
from mnist_lightning.tuning.search_space import Range, SearchSpace
from mnist_lightning.tuning.study import PRUNERS
from mnist_lightning.tuning.trial_runner import Plan, TrialQueue, TrialRunner, _clear_folder
from tests.conftest import DIGITS, Command

pytestmark = pytest.mark.slow

SPACE = """
model.network: {choice: [MultilayerPerceptron]}
model.optimizer.init_args.lr: {choice: [0.01, 0.003, -1.0]}
"""
BASE = "model: {optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.001}}}\n"
SWEEP = ["sweep", "--config", "base.yaml", "--space", "space.yaml", *DIGITS]
SWEEP += ["--trainer.max_epochs", "2", "--dashboards", "none", "--trainer.accelerator", "cpu"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with the files of a sweep."""
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


def start(place: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_lightning", *SWEEP, *more],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"COLUMNS": "100"},
    )


def study_in(place: Path) -> optuna.Study:
    """Create the study of a sweep that has not started."""
    folder = place / "lightning_logs" / "sweeps" / "space"
    folder.mkdir(parents=True)
    storage = f"sqlite:///{folder / 'study.db'}"
    return optuna.create_study(study_name="space", storage=storage, direction="maximize")


def trials_of(place: Path) -> list[optuna.trial.FrozenTrial]:
    file = place / "lightning_logs" / "sweeps" / "space" / "study.db"
    return optuna.load_study(study_name="space", storage=f"sqlite:///{file}").trials


def test_a_sweep_killed_twice_continues_after_failed_trials(place: Path) -> None:
    study = study_in(place)
    owner = TrialQueue(study, 6, place / "lightning_logs" / "sweeps" / "space").owner
    for rate in (0.01, -1.0, 0.003, 0.01, -1.0, 0.003):
        values = {"model.optimizer.init_args.lr": rate}
        study.enqueue_trial(values, user_attrs={"owner": owner})
    counts = ("--trials", "6", "--workers", "2", "--pruner", "none")
    for kill, num_runs in ((os.killpg, 1), (os.kill, 3)):
        sweep = start(place, *counts)
        # Kill it within a trial.
        while len(list(run_directory.list_runs(place / "lightning_logs"))) < num_runs:
            assert sweep.poll() is None
            time.sleep(0.05)
        time.sleep(2)
        kill(sweep.pid, signal.SIGKILL)
        sweep.wait()
        if sweep.stdout is not None:
            sweep.stdout.close()
    sweep = start(place, *counts)
    printed, _ = sweep.communicate(timeout=150)
    assert sweep.returncode == 0, printed
    trials = trials_of(place)
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
            summary = Run(place / trial.user_attrs["run"]).summary()
            assert trial.value == summary["val/accuracy"]
            assert "test/accuracy" not in summary
    assert re.search(r"6 trials: \d finished, \d failed", printed)
    folder = place / "lightning_logs" / "sweeps" / "space"
    assert (folder / "history.png").read_bytes()[:4] == b"\x89PNG"
    best = max(trial.value or 0 for trial in trials if trial.state == TrialState.COMPLETE)
    assert_reproduces(folder / "best.yaml", place, best)


def assert_reproduces(config: Path, place: Path, accuracy: float) -> None:
    """Check that a configuration reproduces the run of a trial, and tests it."""
    fit = [sys.executable, "-m", "mnist_lightning", "fit", "--config", str(config)]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // 2))}  # as the trials had
    again = [*fit, "--run_dir", "again"]
    subprocess.run(again, cwd=place, check=True, capture_output=True, env=os.environ | threads)
    summary = Run(place / "again").summary()
    assert summary["val/accuracy"] == accuracy
    assert summary["test/total"] == 297


def test_a_terminal_shows_a_live_table_of_the_trials(place: Path) -> None:
    (place / "space.yaml").write_text("model.network: {choice: [MultilayerPerceptron]}\n")
    parent, child = pty.openpty()
    sweep = subprocess.Popen(
        [sys.executable, "-m", "mnist_lightning", *SWEEP, "--trials", "2"],
        cwd=place,
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
    assert sweep.wait(60) == 0, text
    for count in range(3):
        assert f"{count} of 2 trials" in text
    _, _, last = text.rpartition("2 of 2 trials")
    assert "MultilayerPerceptron" in last
    assert "2 trials: 2 finished" in last


@pytest.fixture(autouse=True)
def _change_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_an_interrupted_sweep_prints_how_to_continue(place: Path) -> None:
    sweep = start(place, "--trials", "2", "--storage", "study.journal")
    while not any(Path("lightning_logs").glob("version_*/config.yaml")):
        assert sweep.poll() is None
        time.sleep(0.05)
    sweep.send_signal(signal.SIGTERM)
    printed, _ = sweep.communicate(timeout=60)
    assert sweep.returncode == 143
    assert "1 to be continued" in printed
    assert "Repeat the command to continue" in printed
    assert (place / "study.journal").is_file()


def test_mistakes_are_reported_before_any_trial(command: Command, place: Path) -> None:
    for words, message in (
        (SWEEP, ""),
        (["sweep", "--config", "base.yaml"], "--space"),
        ([*SWEEP, "--trials", "0"], "--trials and --workers must be at least 1"),
        ([*SWEEP, "--data.batchsize", "3"], "unknown option --data.batchsize"),
        ([*SWEEP, "--storage", "nowhere"], "--storage nowhere: expected a URL such as sqlite"),
        ([*SWEEP, "--pruner", "shears"], "--pruner: invalid value shears"),
        ([*SWEEP, "--seeds", "1..2"], "--seeds applies to one run"),
        ([*SWEEP, "--trainer.max_epochs", "-1"], "A sweep needs runs that end"),
    )[1:]:
        result = command(*words)
        assert result.status != 0
        assert message in result.err
    (place / "space.yaml").write_text("model.label_smothing: {uniform: [0, 1]}")
    error = command(*SWEEP).err
    assert "unknown option model.label_smothing; did you mean model.label_smoothing?" in error
    assert list(run_directory.list_runs(place / "lightning_logs")) == []


def test_a_name_cannot_be_used_with_another_space(command: Command, place: Path) -> None:
    study_in(place).set_user_attr("made_with", "something else")
    assert "exists with another space or other options" in command(*SWEEP).err


def test_equal_failures_end_the_sweep(command: Command, place: Path) -> None:
    study = study_in(place)
    for _ in range(3):
        study.enqueue_trial({"model.optimizer.init_args.lr": -1.0})
    result = command(*SWEEP, "--trials", "9")
    assert result.status == 1
    assert "3 trials in a row failed with the same error: status 2: --model" in result.err
    assert len(trials_of(place)) == 3


def plan(folder: Path) -> Plan:
    space, root = SearchSpace({"a": Range("choice", (1,))}), folder / "lightning_logs"
    return Plan(space, [], root, folder, threads=1, trials=1, workers=1)


def test_a_bad_trial_is_pruned_but_not_after_its_last_epoch(tmp_path: Path) -> None:
    study = optuna.create_study(direction="maximize", pruner=PRUNERS["asha"]())
    worker = TrialRunner(study, plan(tmp_path), Event())
    for value in (0.9, 0.8, 0.7):
        trial = study.ask()
        trial.report(value, 1)
        trial.should_prune()
    run = run_directory.create_next(tmp_path / "lightning_logs")
    run.write_config({"trainer": {"max_epochs": 3}})
    last, decisions = study.ask(), []
    rows = ["step,dataset,epoch,val/accuracy"]
    for epoch, value in ((1, 0.1), (2, 0.1), (3, 0.1)):
        rows.append(f"{10 * epoch},digits,{epoch},{value}")
        (run.folder / "metrics.csv").write_text("\n".join(rows) + "\n")
        decisions.append(worker._should_prune(last, run))
    assert decisions[0]
    assert not decisions[2]
    assert study.trials[last.number].intermediate_values == {1: 0.1, 2: 0.1, 3: 0.1}


def test_each_trial_is_assigned_once(tmp_path: Path) -> None:
    study = optuna.create_study()
    queue, other = TrialQueue(study, 3, tmp_path), TrialQueue(study, 3, tmp_path)
    first, second = queue.next(), other.next()
    assert first is not None
    assert second is not None
    assert (first.number, second.number) == (0, 1)
    queue.release(first)  # as if its sweep had been killed
    continued, third = other.next(), queue.next()
    assert continued is not None
    assert third is not None
    assert (continued.number, third.number) == (0, 2)
    assert queue.next() is other.next() is None
    # Another machine's sweep does not continue trials of this one.
    queue.release(third)
    (tmp_path / "elsewhere").mkdir()
    assert TrialQueue(study, 3, tmp_path / "elsewhere").next() is None


def test_a_trial_that_ends_during_a_read_is_not_assigned_again(tmp_path: Path) -> None:
    class SlowStudy(optuna.Study):
        """Another worker ends its trial right after the list of trials was read."""

        def get_trials(self, *args: Any, **kwargs: Any) -> list[optuna.trial.FrozenTrial]:
            trials = super().get_trials(*args, **kwargs)
            if queue.locks:
                assert first is not None
                self.tell(first, 0.5)
                queue.release(first)
            return trials

    created = optuna.create_study()
    study = SlowStudy(created.study_name, created._storage)
    queue, other = TrialQueue(created, 2, tmp_path), TrialQueue(study, 2, tmp_path)
    first = queue.next()
    assert first is not None
    second = other.next()
    assert second is not None
    assert (first.number, second.number) == (0, 1)
    assert list(other.locks) == [1]


@pytest.mark.parametrize(
    "stored", ["/", "/etc", "../../precious", "lightning_logs/link", "version_x", "", 3, [], None]
)
def test_a_database_cannot_name_a_foreign_folder(tmp_path: Path, stored: object) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    root = tmp_path / "lightning_logs"
    root.mkdir()
    (root / "version_7").symlink_to(precious)
    study = optuna.create_study()
    worker = TrialRunner(study, plan(tmp_path), Event())
    for value in (stored, "version_7"):
        trial = study.ask()
        trial.set_user_attr("run", value)
        run = worker._claim_run(trial)
        assert run.folder.parent == root.resolve()
        assert run.folder.name in ("version_8", "version_9")


def test_a_database_cannot_name_a_foreign_run(tmp_path: Path) -> None:
    root = tmp_path / "lightning_logs"
    mine = run_directory.create_next(root)
    (mine.checkpoints / "epoch=3.ckpt").write_bytes(b"weeks of work")
    study = optuna.create_study()
    worker = TrialRunner(study, plan(tmp_path), Event())
    study.enqueue_trial({}, user_attrs={"run": str(mine.folder), "owner": "me"})
    trial = study.ask()
    run = worker._claim_run(trial)
    assert run.folder.name == "version_1"
    assert worker._claim_run(trial).folder == run.folder  # it has the mark
    _clear_folder(run.folder)
    assert worker._claim_run(trial).folder == run.folder
    assert (mine.checkpoints / "epoch=3.ckpt").exists()


def test_a_trial_with_parameters_outside_the_space_is_not_trained(place: Path) -> None:
    study = study_in(place)
    study.enqueue_trial({"model.optimizer.init_args.lr": 7.0})
    sweep = start(place, "--trials", "1")
    printed, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    assert "No trial finished" in printed
    assert trials_of(place)[0].user_attrs["error"] == "its parameters are outside the space"


def test_the_attributes_of_a_trial_are_made_printable(tmp_path: Path) -> None:
    study = optuna.create_study()
    trial = study.ask()
    trial.set_user_attr("sweep", "x\n\x1b[31mmodel: {}")
    study.tell(trial, 0.5)
    assert results.format_trial(study.trials[0])
    results.write(study, study.trials[0], {"trainer": {}}, tmp_path)
    lines = (tmp_path / "best.yaml").read_text().splitlines()
    assert lines[0].startswith(r"# Trial 0 of the sweep x\n\x1b[31mmodel: {}: val/accuracy 0.5")
    assert lines[1:] == ["", "trainer: {}"]
