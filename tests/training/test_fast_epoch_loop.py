"""The fast step has the same results as Lightning's own step."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, LambdaCallback

from mnist_lightning.cli.framework_messages import configure_warnings
from mnist_lightning.cli.lightning_cli import DigitCLI, ExperimentParser
from mnist_lightning.cli.verify import first_difference
from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.data.loader import Batch
from mnist_lightning.runs.checkpoint import read_checkpoint
from mnist_lightning.runs.metrics_csv import METRICS_FILE, read_metrics
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.training.fast_epoch_loop import FastEpochLoop
from mnist_lightning.training.lightning_module import DigitClassifier
from tests.conftest import DIGITS, Command

pytestmark = pytest.mark.slow


class CountSteps(Callback):
    """Implements a hook that the fast step skips."""

    steps = 0

    def on_before_optimizer_step(self, *_: Any) -> None:
        """Count."""
        CountSteps.steps += 1


class LogsSteps(Callback):
    """Logs with `LightningModule.log`."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Log the loss of the step, and its mean over the epoch."""
        pl_module.log("mine", outputs["loss"], on_step=True, on_epoch=True, batch_size=1)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--trainer.precision", "bf16-mixed"],
        ["--trainer.precision", "bf16-true"],
        ["--model.lr_scheduler", "OneCycle"],
        ["--model.lr_scheduler", "StepLR", "--model.lr_scheduler.step_size", "1"],
        ["--model.optimizer", "LBFGS", "--model.channels_last", "false"],
        ["--trainer.val_check_interval", "0.5"],
        ["--data.num_workers", "1"],
    ],
    ids=lambda options: " ".join(options[:2]),
)
def test_a_hook_within_the_step_is_called_and_the_result_is_the_same(
    command: Command, options: list[str]
) -> None:
    length = ["--trainer.max_epochs", "2", "--trainer.limit_train_batches", "7"]
    CountSteps.steps = 0
    for counted in ([], ["--trainer.callbacks", f"{__name__}.CountSteps"]):
        result = command("fit", *DIGITS, *length, *options, *counted)
        assert result.status == 0, result.err
        assert CountSteps.steps >= 14 if counted else CountSteps.steps == 0  # LBFGS: more calls
    states = []
    for number in (0, 1):
        checkpoint = read_checkpoint(Run(Path(f"lightning_logs/version_{number}")).recent())
        del checkpoint["config"]
        states.append(checkpoint)
    assert first_difference("last.ckpt", *states) is None


def test_values_that_a_callback_logs_at_a_step_are_written(command: Command) -> None:
    length = ["--trainer.max_epochs", "2", "--trainer.limit_train_batches", "4"]
    logged = ["--trainer.log_every_n_steps", "2", "--trainer.callbacks+", f"{__name__}.LogsSteps"]
    for counted in ([], ["--trainer.callbacks+", f"{__name__}.CountSteps"]):
        assert command("fit", *DIGITS, *length, *logged, *counted).status == 0
    fast, slow = (read_metrics(Path(f"lightning_logs/version_{n}") / METRICS_FILE) for n in (0, 1))
    assert fast == slow
    assert sum(bool(row.get("mine_step")) for row in fast) == 4
    assert sum(bool(row.get("mine_epoch")) for row in fast) == 2


@pytest.mark.parametrize(
    ("options", "is_fast"),
    [
        ([], True),
        (["--trainer.precision", "bf16-mixed"], True),
        (["--model.optimizer", "LBFGS", "--model.channels_last", "false"], False),
        (["--trainer.gradient_clip_val", "1"], False),
        (["--trainer.accumulate_grad_batches", "2"], False),
        (["--trainer.profiler", "simple"], False),
        (["--trainer.callbacks", "LearningRateMonitor"], False),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else str(value),
)
def test_the_fast_step_is_used_if_no_hook_is_skipped(
    command: Command, monkeypatch: pytest.MonkeyPatch, options: list[str], is_fast: bool
) -> None:
    slow_steps = []
    slow_advance = FastEpochLoop.__base__.advance

    def advance(self: FastEpochLoop, data_fetcher: Any) -> None:
        slow_steps.append(1)
        slow_advance(self, data_fetcher)

    monkeypatch.setattr(FastEpochLoop.__base__, "advance", advance)
    length = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "3"]
    assert command("fit", *DIGITS, *length, *options).status == 0
    assert len(slow_steps) == (0 if is_fast else 3)


def test_a_hook_that_is_set_on_an_instance_is_called(tmp_path: Path) -> None:
    calls = []
    configure_warnings()
    cli = DigitCLI(
        ExperimentParser("fit"),
        [*DIGITS, "--trainer.max_steps", "3", "--trainer.logger", "false"],
    )
    cli.load_data()
    callback = LambdaCallback(on_train_batch_start=lambda *_: calls.append(1))
    trainer = cli.make_trainer(callbacks=[callback], folder=tmp_path)
    trainer.fit(cli.model, cli.datamodule)
    assert len(calls) == 3


def test_a_subclass_of_the_classifier_has_all_hooks(tmp_path: Path) -> None:
    class Own(DigitClassifier):
        def on_after_backward(self) -> None:
            assert any(parameter.grad is not None for parameter in self.parameters())
            self.called = True

    configure_warnings()
    cli = DigitCLI(
        ExperimentParser("fit"),
        [*DIGITS, "--trainer.max_steps", "3", "--trainer.logger", "false"],
    )
    cli.load_data()
    model = Own()
    cli.make_trainer(folder=tmp_path).fit(model, cli.datamodule)
    assert model.called


def test_a_subclass_of_the_data_module_has_all_hooks(tmp_path: Path) -> None:
    class Own(MNISTDataModule):
        calls = 0

        def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
            self.calls += 1
            return batch

    configure_warnings()
    length = ["--trainer.max_steps", "3", "--trainer.limit_val_batches", "0"]
    cli = DigitCLI(ExperimentParser("fit"), [*DIGITS, *length, "--trainer.logger", "false"])
    data = Own("digits")
    cli.make_trainer(folder=tmp_path).fit(cli.model, data)
    assert data.calls == 3
