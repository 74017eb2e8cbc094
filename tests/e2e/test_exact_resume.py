"""A run that was killed or interrupted at any point ends as if it had not been interrupted."""

import shutil
import signal
from pathlib import Path

import pytest

from mnist_lightning.runs.recent_checkpoints import progress
from mnist_lightning.runs.run_directory import Run
from tests.cli.checks import assert_equal, load_checkpoint
from tests.conftest import DIGITS
from tests.e2e.exact_resume import (
    BATCHES,
    EPOCHS,
    FIT,
    OPTIONS,
    SIGNAL_POINTS,
    FinalState,
    Uninterrupted,
    first_run,
)
from tests.fuzzing import run_cases
from tests.processes import (
    CHECKPOINTING,
    CLASSIFIER,
    RUNNER,
    SignalPoint,
    at_step,
    read_output,
    run,
    start,
    wait_for_exit,
)
from tests.run_differences import differences


@pytest.mark.parametrize(
    ("options", "signum"),
    [("autosave", signal.SIGKILL), ("autosave and workers", signal.SIGINT)],
    ids=["killed", "interrupted, with workers"],
)
def test_a_resumed_run_ends_with_the_same_bits_after_a_signal_at_any_point(
    tmp_path: Path, uninterrupted: Uninterrupted, options: str, signum: signal.Signals
) -> None:
    expected = uninterrupted(options)
    folders = {name: tmp_path / name for name in SIGNAL_POINTS}
    for folder in folders.values():
        folder.mkdir()
    command = [*FIT, *OPTIONS[options]]
    processes = {
        name: start(command, folder, SIGNAL_POINTS[name]._replace(signum=signum))
        for name, folder in folders.items()
    }
    statuses = {name: wait_for_exit(process) for name, process in processes.items()}
    assert statuses == dict.fromkeys(SIGNAL_POINTS, 128 + signum)
    resumed = {name: start(["resume"], folder) for name, folder in folders.items()}
    for name, folder in folders.items():
        assert wait_for_exit(resumed[name]) == 0, (name, read_output(folder))
        expected.assert_equals(folder)
        assert not list(folder.rglob(".*.tmp"))


@pytest.mark.parametrize("options", [name for name in OPTIONS if name not in ("plain", "autosave")])
def test_an_interrupted_run_with_any_options_resumes_at_the_saved_batch(
    tmp_path: Path, uninterrupted: Uninterrupted, options: str
) -> None:
    point = SIGNAL_POINTS["in a step"]._replace(signum=signal.SIGTERM)
    assert run([*FIT, *OPTIONS[options]], tmp_path, point) == 143
    output = read_output(tmp_path)
    assert "Interrupted. Saved through batch" in output
    assert "python -m mnist_lightning resume 0" in output
    saved = progress(load_checkpoint(first_run(tmp_path).recent()))
    assert saved.epochs == 1
    assert 6 <= saved.batches <= 8  # the next step without pending gradients or validation
    assert run(["resume"], tmp_path) == 0
    assert f"resuming lightning_logs/version_0 after {saved}" in read_output(tmp_path)
    uninterrupted(options).assert_equals(tmp_path)


def test_early_stopping_restores_its_patience_and_its_decision(tmp_path: Path) -> None:
    stopping = [
        *("--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"),
        *("--trainer.callbacks.patience", "1", "--model.optimizer.lr", "0.03"),
        *("--trainer.max_epochs", "30"),
    ]
    whole, before_stop, at_stop = folders = [tmp_path / name for name in ("whole", "before", "at")]
    for folder in folders:
        folder.mkdir()
    assert run([*FIT, *stopping], whole) == 0
    num_epochs = first_run(whole).summary()["epochs"]
    assert 2 < num_epochs < 30
    for folder, epoch in ((before_stop, num_epochs - 1), (at_stop, num_epochs)):
        point = SignalPoint(CHECKPOINTING, "RunCheckpoints.on_epoch_completed", epoch, after=True)
        assert run([*FIT, *stopping], folder, point) == 128 + signal.SIGKILL
        assert run(["resume"], folder) == 0
        FinalState(whole).assert_equals(folder)
    assert run(["resume"], whole) == 0
    assert f"is finished: {num_epochs} of 30 epochs" in read_output(whole)


MAX_STEPS = ["--trainer.max_steps", "20"]
FIT_BY_STEPS = ["fit", *DIGITS, "--trainer.log_every_n_steps", "2"]


@pytest.mark.parametrize(
    "points",
    [
        [at_step(17)],
        [at_step(20, after=True)],
        [SignalPoint(CLASSIFIER, "DigitClassifier.on_train_end", 1, signum=signal.SIGTERM)],
        [SignalPoint(CLASSIFIER, "DigitClassifier.on_train_end", 1, after=True)],
        [SignalPoint(CLASSIFIER, "DigitClassifier.test_step", 1)],
        [SignalPoint(RUNNER, "_fit_calibration", 1)],
        [
            at_step(15, signal.SIGINT),
            at_step(2, signal.SIGTERM),
            SignalPoint(CLASSIFIER, "DigitClassifier.test_step", 1),
            SignalPoint(RUNNER, "_show_hyperparameters", 1),
        ],
    ],
    ids=["in a step", "last step", "at the end", "saved", "testing", "calibrating", "repeated"],
)
def test_a_run_with_max_steps_is_resumed_and_extended_exactly(
    tmp_path: Path, points: list[SignalPoint]
) -> None:
    whole, longer, resumed = folders = [tmp_path / name for name in ("whole", "longer", "resumed")]
    for folder in folders:
        folder.mkdir()
    assert run([*FIT_BY_STEPS, *MAX_STEPS], whole) == 0
    assert run([*FIT_BY_STEPS, "--trainer.max_steps", "33"], longer) == 0
    command = [*FIT_BY_STEPS, *MAX_STEPS]
    for point in points:
        assert run(command, resumed, point) == 128 + point.signum, read_output(resumed)
        command = ["resume"] if list(resumed.rglob("last.ckpt")) else command
    assert run(command, resumed) == 0, read_output(resumed)
    assert list(differences(first_run(whole), first_run(resumed), extended=False)) == []
    assert run(["resume", "--trainer.max_steps", "33"], resumed) == 0
    assert list(differences(first_run(longer), first_run(resumed), extended=True)) == []


def test_a_run_ended_within_an_epoch_by_max_steps_is_extended_exactly(
    tmp_path: Path, uninterrupted: Uninterrupted
) -> None:
    command = ["fit", *DIGITS]
    assert run([*command, "--trainer.max_steps", "20"], tmp_path) == 0
    longer = ["--trainer.max_steps", "-1", "--trainer.max_epochs", str(EPOCHS)]
    assert run(["resume", *longer], tmp_path) == 0
    assert "after batch 7 of epoch 2" in read_output(tmp_path)
    last = load_checkpoint(first_run(tmp_path).recent())
    expected = uninterrupted("plain").last
    for part in ("state_dict", "optimizer_states", "loops"):
        assert_equal(last[part], expected[part])


COMPONENT_OPTIONS = {
    "64-true": ["--trainer.precision", "64-true"],
    "16-true": ["--trainer.precision", "16-true", "--model.optimizer", "SGD"],
    "bf16-true": ["--trainer.precision", "bf16-true", "--model.optimizer", "NAdam"],
    "16-true, ASGD": ["--trainer.precision", "16-true", "--model.optimizer", "ASGD"],
    "bf16-mixed": ["--trainer.precision", "bf16-mixed"],
    "64-true, a moving average": [
        *("--trainer.precision", "64-true"),
        *("--trainer.callbacks", "ExponentialMovingAverage", "--trainer.callbacks.decay", "0.8"),
    ],
    "accumulation by epoch": [
        *("--trainer.callbacks", "GradientAccumulationScheduler"),
        *("--trainer.callbacks.scheduling", "{0: 2, 1: 3}"),
    ],
    "checkpoints by step, accumulation": [
        *("--trainer.callbacks", "ModelCheckpoint", "--trainer.callbacks.save_top_k", "-1"),
        *("--trainer.callbacks.every_n_train_steps", "3"),
        *("--trainer.accumulate_grad_batches", "2"),
    ],
    "checkpoints by a metric": [
        *("--trainer.callbacks", "ModelCheckpoint", "--trainer.callbacks.monitor", "val/loss"),
        *("--trainer.check_val_every_n_epoch", "2", "--dashboards", "none"),
    ],
    "a metric of an earlier epoch": [
        *("--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"),
        *("--trainer.check_val_every_n_epoch", "2"),
    ],
    "a plateau, epochs without validation": [
        *("--model.lr_scheduler", "ReduceLROnPlateau", "--model.lr_scheduler.patience", "0"),
        *("--trainer.check_val_every_n_epoch", "4", "--model.optimizer.lr", "0.05"),
    ],
    "statistics of the device": ["--trainer.callbacks", "DeviceStatsMonitor"],
    "images in TensorBoard, accumulation": [
        *("--trainer.accumulate_grad_batches", "4", "--trainer.val_check_interval", "2"),
        *("--dashboards", "full"),
    ],
}


@pytest.mark.parametrize("options", COMPONENT_OPTIONS.values(), ids=COMPONENT_OPTIONS)
def test_a_run_with_any_component_is_resumed_exactly(tmp_path: Path, options: list[str]) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for folder in (whole, resumed):
        folder.mkdir()
    assert run([*FIT, *options], whole) == 0, read_output(whole)
    command = [*FIT, *options]
    for point in (at_step(BATCHES + 6, signal.SIGTERM), at_step(3, signal.SIGINT)):
        assert run(command, resumed, point) == 128 + point.signum, read_output(resumed)
        command = ["resume"]
    point = SignalPoint(RUNNER, "_show_hyperparameters", 1, after=True)
    assert run(command, resumed, point) == 128 + signal.SIGKILL
    assert run(command, resumed) == 0, read_output(resumed)
    assert list(differences(first_run(whole), first_run(resumed), extended=False)) == []


@pytest.mark.parametrize("number", range(6))
def test_a_random_run_interrupted_at_random_points_is_resumed_exactly(number: int) -> None:
    ((_, case, verdict),) = run_cases(seed=23, first=number, count=1)
    assert verdict.kind in ("equal", "refused"), (verdict, case)


def test_more_frequent_validation_does_not_change_the_training(tmp_path: Path) -> None:
    states = []
    for number, every in enumerate(("1.0", "3")):
        assert run([*FIT, "--trainer.val_check_interval", every], tmp_path) == 0
        states.append(load_checkpoint(Run(tmp_path / f"lightning_logs/version_{number}").recent()))
    for part in ("state_dict", "optimizer_states", "RandomState"):
        left, right = (
            {**state, "RandomState": state["callbacks"]["RandomState"]}[part]  # type: ignore[index] # one of these
            for state in states
        )
        assert_equal(left, right)


def test_a_copied_run_directory_is_resumed_exactly(
    tmp_path: Path, uninterrupted: Uninterrupted
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    run([*FIT, *OPTIONS["autosave"]], first, SIGNAL_POINTS["in a step"])
    shutil.copytree(first, second)
    assert run(["resume"], second) == 0
    uninterrupted("autosave").assert_equals(second)


def test_a_run_ended_by_max_time_is_resumed(tmp_path: Path) -> None:
    limit = ["--trainer.max_time", "00:00:00:01", "--trainer.accumulate_grad_batches", "4"]
    command = ["fit", *DIGITS, *limit]
    assert run([*command, "--trainer.max_epochs", "1000"], tmp_path) == 0
    run_0 = first_run(tmp_path)
    first = load_checkpoint(run_0.recent())["global_step"]
    assert run_0.summary()["resume"] == "unverified"
    assert run(["resume", "--trainer.max_time", "00:00:00:02"], tmp_path) == 0
    last = load_checkpoint(run_0.recent())["global_step"]
    assert isinstance(first, int) and isinstance(last, int) and 0 < first < last
    assert run_0.summary()["state"] == "finished"
