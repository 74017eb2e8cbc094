"""The exponential moving average of the weights: its values, and where it is used."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from mnist_lightning import DigitClassifier, MNISTDataModule
from mnist_lightning.networks.batch_norm_cnn import BatchNormCNN
from mnist_lightning.runs.checkpoint import network_weights
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.training.callbacks.ema import TRAINED_KEY, ExponentialMovingAverage
from tests.cli.checks import assert_equal, load_checkpoint
from tests.conftest import DIGITS, Command

AVERAGED = [
    *DIGITS,
    "--model.network=BatchNormCNN",
    "--trainer.callbacks=ExponentialMovingAverage",
    "--trainer.callbacks.decay=0.9",
]


class Steps(Callback):
    """Stores the weights before the first step and after each step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Store the initial weights."""
        self._store(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *others: Any
    ) -> None:
        """Store the weights after a step."""
        if trainer.global_step > self.stored_step:
            self._store(pl_module)

    def _store(self, pl_module: pl.LightningModule) -> None:
        self.stored_step = pl_module.global_step
        assert isinstance(pl_module, DigitClassifier)
        state = pl_module.network.state_dict()
        self.weights.append({name: tensor.clone() for name, tensor in state.items()})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_network_ends_as_the_average_of_its_steps(tmp_path: Path, accumulated: int) -> None:
    steps = Steps()
    model = DigitClassifier(BatchNormCNN())
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        max_epochs=2,
        accumulate_grad_batches=accumulated,
        callbacks=[ExponentialMovingAverage(0.8), steps],
    )
    trainer.fit(model, MNISTDataModule("digits"))
    expected, *others = steps.weights
    assert len(others) == trainer.global_step
    for step, weights in enumerate(others, start=1):
        decay = min(0.8, (1 + step) / (10 + step))
        expected = {
            name: decay * expected[name] + (1 - decay) * tensor for name, tensor in weights.items()
        }
    for name, tensor in model.network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, others[-1][name])
        else:
            torch.testing.assert_close(tensor, expected[name])


def test_the_average_is_validated_saved_and_tested(command: Command, run_0: Run) -> None:
    fitted = command("fit", *AVERAGED, "--trainer.max_epochs", "2")
    checkpoint: dict[str, Any] = load_checkpoint(run_0.best)
    trained, saved = checkpoint[TRAINED_KEY], checkpoint["state_dict"]
    assert trained.keys() == BatchNormCNN().state_dict().keys()
    assert not torch.equal(trained["head.2.weight"], saved["network.head.2.weight"])
    summary = run_0.summary()
    assert f"{100 * summary['val/accuracy']:.2f} %" in command("validate", "0").out
    for result in (fitted, command("test", "0")):
        assert f"{100 * summary['test/accuracy']:.2f} %" in result.out


def test_the_weights_file_contains_the_average(command: Command, run_0: Run) -> None:
    export = ["--trainer.callbacks+=WeightsFile"]
    assert command("fit", *AVERAGED, *export, "--trainer.max_epochs", "2").status == 0
    weights = torch.load(run_0.folder / "model.pth", weights_only=True)
    assert_equal(weights, network_weights(load_checkpoint(run_0.recent())))


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_without_an_average_starts_from_its_weights(tmp_path: Path) -> None:
    data, first = MNISTDataModule("digits"), tmp_path / "first.ckpt"
    trainer = pl.Trainer(default_root_dir=tmp_path, max_steps=5)
    trainer.fit(DigitClassifier(), data)
    trainer.save_checkpoint(first)
    steps = Steps()
    averaged = pl.Trainer(
        default_root_dir=tmp_path, max_steps=6, callbacks=[ExponentialMovingAverage(), steps]
    )
    model = DigitClassifier()
    averaged.fit(model, data, ckpt_path=first)
    before, after = steps.weights
    for name, tensor in model.network.state_dict().items():
        torch.testing.assert_close(tensor, (7 * before[name] + 9 * after[name]) / 16)


def test_in_half_precision_the_average_changes() -> None:
    model, callback = DigitClassifier(nn.Linear(1, 1).bfloat16()), ExponentialMovingAverage(0.999)
    trainer: Any = SimpleNamespace(global_step=100_000, callbacks=[callback])
    for value in (0, 1):
        for parameter in model.network.parameters():
            nn.init.constant_(parameter, value)
        if value == 0:
            callback.on_fit_start(trainer, model)
            callback.on_train_start(trainer, model)
    for _ in range(1000):
        trainer.global_step += 1
        callback.on_train_batch_end(trainer, model, None, None, 0)
    average = callback.weights_to_export(trainer, model.network)
    assert float(average["weight"]) == pytest.approx(1 - 0.999**1000, abs=0.001)


@pytest.mark.parametrize("decay", [-0.1, 1])
def test_an_invalid_decay_is_rejected(decay: float) -> None:
    with pytest.raises(ValueError, match=f"Invalid decay {decay}: expected at least 0 and below 1"):
        ExponentialMovingAverage(decay)


def test_lightning_s_own_average_is_rejected(command: Command, tmp_path: Path) -> None:
    result = command("fit", *DIGITS, "--trainer.callbacks=EMAWeightAveraging")
    assert result.status == 2
    assert "EMAWeightAveraging" in result.err
    assert "Use ExponentialMovingAverage" in result.err
    assert list(tmp_path.iterdir()) == []
