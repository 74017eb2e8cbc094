"""Runs that cannot be resumed exactly are rejected before training, or marked as unverified."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision

from mnist_lightning.errors import UserError
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.training.compatibility import _compare_schedule_states
from mnist_lightning.training.lr_schedules import OneCycle
from mnist_lightning.training.preflight import check_loss_scaling
from tests.conftest import DIGITS, Command

CALLBACK = "--trainer.callbacks"


@pytest.mark.parametrize(
    ("options", "alternative"),
    [
        ([CALLBACK, "StochasticWeightAveraging", f"{CALLBACK}.swa_lrs", "0.01"], "Use Exponential"),
        ([CALLBACK, "ModelPruning", f"{CALLBACK}.pruning_fn", "l1_unstructured"], "torch.nn.utils"),
        ([CALLBACK, "BackboneFinetuning"], "--init_from RUN"),
        ([CALLBACK, "BatchSizeFinder"], "the command sweep"),
        ([CALLBACK, "LearningRateFinder"], "the command sweep"),
        ([CALLBACK, "SpikeDetection"], "Use EarlyStopping"),
        ([CALLBACK, "OnExceptionCheckpoint", f"{CALLBACK}.dirpath", "."], "--autosave MINUTES"),
        ([CALLBACK, "ModelCheckpoint", f"{CALLBACK}.save_last", "true"], "Remove save_last."),
        ([CALLBACK, "ModelCheckpoint", f"{CALLBACK}.filename", "last"], "Remove filename."),
        ([CALLBACK, "ModelCheckpoint", f"{CALLBACK}.dirpath", "there"], "Remove dirpath."),
        (["--model.optimizer", "Muon"], "AdamW or SGD"),
        (["--model.optimizer", "SparseAdam"], "AdamW or SGD"),
        (["--model.optimizer", "LBFGS"], "Set --model.channels_last false"),
        (["--trainer.limit_val_batches", "0.1"], "give at least 1.0"),
        (["--trainer.val_check_interval", "30"], "--trainer.check_val_every_n_epoch null"),
        (
            [
                *(CALLBACK, "GradientAccumulationScheduler", f"{CALLBACK}.scheduling", "{0: 2}"),
                *("--trainer.accumulate_grad_batches", "2"),
            ],
            "give only one",
        ),
        (
            [CALLBACK, "EarlyStopping", f"{CALLBACK}.monitor", "val/loss", "--data.val_size", "0"],
            "monitor train/loss",
        ),
        (
            [
                *(CALLBACK, "EarlyStopping", f"{CALLBACK}.monitor", "train/loss"),
                *("--trainer.val_check_interval", "3"),
            ],
            "check_on_train_epoch_end true",
        ),
        (
            [CALLBACK, "EarlyStopping", f"{CALLBACK}.monitor", "val/recall"],
            "Existing metrics: train/loss, train/accuracy, val/loss, val/accuracy.",
        ),
        (
            [f"{CALLBACK}+=ExponentialMovingAverage", f"{CALLBACK}+=ExponentialMovingAverage"],
            "give it once",
        ),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else None,
)
def test_it_is_rejected_before_training_with_an_alternative(
    command: Command, tmp_path: Path, options: list[str], alternative: str
) -> None:
    result = command("fit", *DIGITS, "--trainer.max_epochs", "1", *options)
    assert result.status == 2
    assert alternative in result.err
    assert "looks like a bug" not in result.err
    assert not (tmp_path / "lightning_logs").exists()


def test_a_run_of_registered_classes_is_exact(command: Command, run_0: Run) -> None:
    result = command("fit", *DIGITS, "--trainer.max_epochs", "1")
    assert "not verified" not in result.out
    assert run_0.summary()["resume"] == "exact"


def test_a_run_of_other_classes_is_unverified(
    command: Command, run_0: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_parts.py").write_text(
        "from lightning.pytorch.callbacks import Callback\nclass Watch(Callback):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    result = command("fit", *DIGITS, "--trainer.max_epochs", "1", CALLBACK, "own_parts.Watch")
    assert result.status == 0, result.err
    assert "Exact resume is not verified with own_parts.Watch." in result.out
    assert run_0.summary()["resume"] == "unverified"


def test_a_checkpoint_that_cannot_be_read_back_is_not_saved(
    command: Command, run_0: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keeps_objects.py").write_text(
        "from pathlib import Path\n"
        "from lightning.pytorch.callbacks import Callback\n"
        "class Keeps(Callback):\n"
        "    epochs = 0\n"
        "    def on_train_epoch_end(self, *_):\n"
        "        self.epochs += 1\n"
        "    def state_dict(self):\n"
        "        return {'kept': Path('.') if self.epochs > 1 else None}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    result = command("fit", *DIGITS, "--trainer.max_epochs", "3", CALLBACK, "keeps_objects.Keeps")
    assert result.status == 1
    assert "looks like a bug" not in result.err
    names = sorted(path.name for path in run_0.checkpoints.iterdir())
    assert names == ["best.ckpt", "last.ckpt"]
    assert command("test", "0").status == 0


@pytest.mark.parametrize(
    ("optimizer_class", "reason"),
    [(torch.optim.LBFGS, "use --trainer.precision bf16-mixed"), (torch.optim.SGD, None)],
)
def test_an_optimizer_without_loss_scaling_is_rejected(
    optimizer_class: Callable[..., torch.optim.Optimizer], reason: str | None
) -> None:
    scaler = torch.amp.GradScaler("cpu")
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
    )
    optimizer = optimizer_class([torch.zeros(1, requires_grad=True)])
    if reason is None:
        check_loss_scaling(optimizer, trainer)
        return
    with pytest.raises(UserError, match=reason):
        check_loss_scaling(optimizer, trainer)


def test_a_schedule_of_a_long_run_is_restored_after_its_first_step() -> None:
    weights = [torch.nn.Parameter(torch.zeros(1))]
    schedule = OneCycle(torch.optim.SGD(weights, lr=0.1), total_steps=10**8)
    state = schedule.state_dict()
    short = OneCycle(torch.optim.SGD(weights, lr=0.1), total_steps=1000)
    _compare_schedule_states(short, state, steps=1)
    with pytest.raises(ValueError, match="last_epoch"):
        _compare_schedule_states(short, state | {"last_epoch": 10**15}, steps=1)
