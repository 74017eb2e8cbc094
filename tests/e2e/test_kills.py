"""Kills and signals at certain moments: within a save, repeated, during the test."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_lightning.cli.verify import first_difference_of_runs
from mnist_lightning.runs.recent_checkpoints import progress
from tests.cli.checks import load_checkpoint
from tests.e2e.exact_resume import (
    BATCHES,
    FIT,
    OPTIONS,
    Uninterrupted,
    first_run,
)
from tests.processes import (
    CHECKPOINTING,
    CLASSIFIER,
    RUNNER,
    SignalPoint,
    at_step,
    read_output,
    run,
    start,
)


def test_three_kills_in_one_epoch_do_not_change_the_result(
    tmp_path: Path, uninterrupted: Uninterrupted
) -> None:
    command = [*FIT, *OPTIONS["autosave"]]
    for call in (BATCHES + 3, 4, 5):
        assert run(command, tmp_path, at_step(call)) == 128 + signal.SIGKILL
        command = ["resume"]
    assert run(command, tmp_path) == 0
    uninterrupted("autosave").assert_equals(tmp_path)


def test_kills_at_random_moments_do_not_change_the_result(
    tmp_path: Path, uninterrupted: Uninterrupted
) -> None:
    moments = random.Random(0)
    command = [*FIT, *OPTIONS["autosave"]]
    checkpoints = first_run(tmp_path).checkpoints
    for _ in range(6):
        process = start(command, tmp_path)
        while process.is_alive() and not any(checkpoints.glob("last*.ckpt")):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.6))
        process.kill()
        process.join()
        command = ["resume"]
    assert run(command, tmp_path) == 0, read_output(tmp_path)
    uninterrupted("autosave").assert_equals(tmp_path)


@pytest.mark.parametrize(("method", "after"), [("_rotate", True), ("_save_last", False)])
def test_a_run_killed_while_saving_resumes_from_the_previous_checkpoint(
    tmp_path: Path, uninterrupted: Uninterrupted, method: str, after: bool
) -> None:
    point = SignalPoint(CHECKPOINTING, f"RunCheckpoints.{method}", BATCHES + 4, after)
    assert run([*FIT, *OPTIONS["autosave"]], tmp_path, point) == 128 + signal.SIGKILL
    assert run(["resume"], tmp_path) == 0
    uninterrupted("autosave").assert_equals(tmp_path)


@pytest.mark.parametrize(
    "point",
    [
        *(
            SignalPoint("mnist_lightning.runs.metrics_csv", "write_atomically", call, True)
            for call in (2, 3)
        ),
        SignalPoint(RUNNER, "_show_hyperparameters", 1, after=True),
    ],
    ids=["new column", "columns of the test", "after the test"],
)
def test_a_kill_between_two_writes_loses_no_row_of_the_logs(
    tmp_path: Path, uninterrupted: Uninterrupted, point: SignalPoint
) -> None:
    assert run([*FIT, *OPTIONS["autosave"]], tmp_path, point) == 128 + signal.SIGKILL
    assert run(["resume"], tmp_path) == 0
    expected = uninterrupted("autosave")
    expected.assert_equals(tmp_path)
    resumed = first_run(tmp_path)
    assert first_difference_of_runs(expected.run, resumed) is None  # with the test results
    events = EventAccumulator(str(resumed.folder)).Reload()
    assert len(events.Scalars("final/val_accuracy")) == 1


def test_a_partially_written_file_is_removed(tmp_path: Path, uninterrupted: Uninterrupted) -> None:
    # The calls flush a file and its folder in turn. At this one, the file has its temporary name.
    point = SignalPoint("os", "fsync", 21)
    assert run([*FIT, *OPTIONS["autosave"]], tmp_path, point) == 128 + signal.SIGKILL
    assert list(tmp_path.rglob(".*.tmp"))
    assert run(["resume"], tmp_path) == 0
    assert not list(tmp_path.rglob(".*.tmp"))
    uninterrupted("autosave").assert_equals(tmp_path)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_workers_ignore_a_signal_to_the_process_group(
    tmp_path: Path, uninterrupted: Uninterrupted, signum: signal.Signals
) -> None:
    process = start([*FIT, *OPTIONS["autosave and workers"]], tmp_path)
    while process.is_alive() and not list(tmp_path.rglob("last-1.ckpt")):
        time.sleep(0.01)
    assert process.pid is not None
    os.killpg(process.pid, signum)
    process.join(20)
    assert process.exitcode == 128 + signum, read_output(tmp_path)
    assert run(["resume"], tmp_path) == 0
    uninterrupted("autosave and workers").assert_equals(tmp_path)


def test_sigterm_during_the_test_ends_with_its_exit_status(tmp_path: Path) -> None:
    point = SignalPoint(CLASSIFIER, "DigitClassifier.test_step", 1, signum=signal.SIGTERM)
    assert run([*FIT, "--data.eval_batch_size", "50"], tmp_path, point) == 143
    assert first_run(tmp_path).summary()["state"] == "interrupted"
    assert run(["resume"], tmp_path) == 0


def test_an_interrupt_does_not_change_which_checkpoints_are_kept(tmp_path: Path) -> None:
    point = at_step(2 * BATCHES + 4, signal.SIGTERM)
    assert run([*FIT, "--autosave", "0"], tmp_path, point) == 143
    interrupted = first_run(tmp_path)
    kept = [progress(load_checkpoint(interrupted.recent(index))) for index in range(3)]
    assert kept[0].epochs == 2 and kept[0].batches >= 4
    assert kept[1:] == [(2, 0), (1, 0)]


def test_a_damaged_checkpoint_does_not_replace_an_intact_one(tmp_path: Path) -> None:
    assert run([*FIT, "--trainer.max_epochs", "2"], tmp_path) == 0
    resumed = first_run(tmp_path)
    older = resumed.recent(1).read_bytes()
    resumed.recent().write_bytes(resumed.recent().read_bytes()[:-1000])
    assert run(["resume", str(resumed.recent(1)), "--trainer.max_epochs", "3"], tmp_path) == 0
    assert (resumed.checkpoints / "last.ckpt.damaged-1").exists()
    assert older in (resumed.recent(1).read_bytes(), resumed.recent(2).read_bytes())
    kept = [load_checkpoint(resumed.recent(index)) for index in range(3)]
    assert [progress(checkpoint).epochs for checkpoint in kept] == [3, 2, 1]
