"""Interrupted runs: no completed epoch is lost, and an unbounded run ends properly."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_lightning.networks.digit_net import DigitNet
from mnist_lightning.runs.metrics_csv import read_metrics
from mnist_lightning.runs.recent_checkpoints import progress
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.training.callbacks.checkpointing import RunCheckpoints
from mnist_lightning.training.callbacks.prediction_collector import PredictionCollector
from mnist_lightning.training.callbacks.progress import ProgressLines
from mnist_lightning.training.callbacks.state_dict_export import WeightsFile
from mnist_lightning.training.lightning_module import DigitClassifier
from tests.cli.checks import load_checkpoint
from tests.conftest import DIGITS, EPOCH_ROW, Command
from tests.processes import child_process

pytestmark = pytest.mark.slow

DIGIT_NET = Path(__file__).parent.parent.parent / "configs" / "digit_net.yaml"
BATCHES = 21  # per epoch: 1,300 digits, 64 per batch


def interrupt_at(patch: pytest.MonkeyPatch, owner: type, method: str, call: int) -> None:
    """Send SIGINT in call number `call` of `owner.method`."""
    original, calls = getattr(owner, method), 0

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            signal.raise_signal(signal.SIGINT)
        assert calls < 3 * call + BATCHES, "the interrupt was ignored"
        return original(*args, **kwargs)

    patch.setattr(owner, method, wrapper)


@pytest.mark.parametrize(
    ("owner", "method", "call", "batches"),
    [
        (DigitClassifier, "training_step", 2 * BATCHES + 3, 3),
        (DigitClassifier, "training_step", 2 * BATCHES, 0),
        (DigitClassifier, "validation_step", 2, 0),
        (RunCheckpoints, "_rotate", 2, 0),
        (WeightsFile, "on_train_epoch_end", 2, 0),
        (ProgressLines, "on_train_epoch_start", 3, 1),
    ],
    ids=["in a batch", "in the last batch", "validating", "saving", "weights", "between epochs"],
)
def test_an_interrupted_unbounded_run_is_tested_and_resumed_without_losing_an_epoch(
    command: Command,
    run_0: Run,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    method: str,
    call: int,
    batches: int,
) -> None:
    digit_net = ["fit", "--config", str(DIGIT_NET), *DIGITS]
    with monkeypatch.context() as patch:
        interrupt_at(patch, owner, method, call)
        result = command(*digit_net)
    assert result.status == 130, result.err
    assert len(EPOCH_ROW.findall(result.out)) == 2
    saved = progress(load_checkpoint(run_0.recent()))
    assert saved == (2, batches)
    message = f"Interrupted. Saved through {saved} in lightning_logs/version_0. Testing"
    assert message in result.out
    assert "of 297" in result.out
    summary = run_0.summary()
    assert (summary["state"], summary["epochs"]) == ("interrupted", 2)
    assert summary["test/total"] == 297
    assert run_0.predictions.exists()
    rows = read_metrics(run_0.folder / "metrics.csv")
    assert [row["step"] for row in rows if row["test/loss"]] == [str(2 * BATCHES + batches)]
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps))

    resumed = command(*digit_net, "--trainer.max_epochs", "3")
    assert resumed.status == 0, resumed.err
    assert f"resuming lightning_logs/version_0 after {saved}" in resumed.out
    assert run_0.summary()["state"] == "finished"


def test_an_interrupted_bounded_run_is_saved_and_not_tested(
    command: Command, run_0: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, DigitClassifier, "training_step", 20)
        result = command("fit", *DIGITS, "--trainer.max_epochs", "3")
    assert result.status == 130
    assert (
        "Interrupted. Saved through batch 7 of epoch 2 in lightning_logs/version_0." in result.out
    )
    assert "python -m mnist_lightning resume 0" in result.out
    assert not run_0.predictions.exists()
    assert run_0.summary()["state"] == "interrupted"


def test_a_run_interrupted_after_its_last_epoch_is_tested_on_resume(
    command: Command, run_0: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, DigitClassifier, "validation_step", 2)
        result = command("fit", *DIGITS, "--trainer.max_epochs", "2")
    assert result.status == 130
    assert "Saved through epoch 2" in result.out
    assert not run_0.predictions.exists()
    assert command("resume").status == 0
    assert run_0.summary()["test/total"] == 297


def test_the_second_interrupt_ends_the_run_at_once(
    command: Command, run_0: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, DigitClassifier, "training_step", BATCHES + 3)
        interrupt_at(patch, PredictionCollector, "on_test_batch_end", 1)
        result = command("fit", "--config", str(DIGIT_NET), *DIGITS)
    assert result.status == 130
    assert "Saved through batch 3 of epoch 2" in result.out
    assert not run_0.predictions.exists()


def test_ignored_interrupts_stay_ignored(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup and a shell's & do
    try:
        interrupt_at(monkeypatch, DigitClassifier, "training_step", 5)
        assert command("fit", *DIGITS, "--trainer.max_epochs", "1").status == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_signal_handlers_are_restored_after_a_run(command: Command) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def interrupt_after_first_epoch(folder: Path, wait: float) -> str:
    """Start DigitNet, send SIGINT `wait` seconds after an epoch; return the output since then."""
    with child_process(
        [sys.executable, "-m", "mnist_lightning", "fit", "--config", str(DIGIT_NET), *DIGITS],
        cwd=folder,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        while not EPOCH_ROW.match(process.stdout.readline()):
            assert process.poll() is None
        time.sleep(wait)
        process.send_signal(signal.SIGINT)
        output = str(process.stdout.read())
        assert process.wait(timeout=300) == 130
        return output


def test_repeated_interrupts_at_any_moment_lose_no_epoch(tmp_path: Path, run_0: Run) -> None:
    num_epochs = 0
    for wait in (0.0, 0.37, 0.83):  # seconds after the line of an epoch
        output = interrupt_after_first_epoch(tmp_path, wait)
        num_epochs += 1 + len(EPOCH_ROW.findall(output))
        assert "test accuracy" in output
        assert (
            progress(load_checkpoint(run_0.recent())).epochs
            == run_0.summary()["epochs"]
            == num_epochs
        )
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]
    weights = torch.load(run_0.folder / "model.pth", weights_only=True)
    DigitNet().load_state_dict(weights)
