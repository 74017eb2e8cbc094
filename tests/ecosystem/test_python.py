"""The data module and the classifier with Lightning's own Trainer, Fabric and Tuner."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.tuner.tuning import Tuner
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.training.lightning_module import DigitClassifier

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),  # lightning's own call
    pytest.mark.filterwarnings("ignore:.*`fit` dataloader"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:.*but have no logger configured"),
    pytest.mark.filterwarnings("ignore:.*but have no `val_dataloader`"),
]


@pytest.fixture
def make_trainer(tmp_path: Path) -> Any:
    """Return the function that creates a stock Trainer that writes nothing unasked."""

    def make(**options: Any) -> Trainer:
        quiet = dict.fromkeys(
            ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
        )
        return Trainer(accelerator="cpu", default_root_dir=tmp_path, **{**quiet, **options})

    return make


@pytest.fixture
def data() -> MNISTDataModule:
    """A small data set."""
    return MNISTDataModule("digits")


def test_predictions_are_probabilities_of_the_test_images_in_order(
    make_trainer: Any, data: MNISTDataModule
) -> None:
    seed_everything(1, verbose=False)
    model, trainer = DigitClassifier(), make_trainer(max_epochs=8)
    trainer.fit(model, data)
    rows = torch.cat(trainer.predict(model, data))
    assert torch.allclose(rows.sum(dim=1), torch.ones(297))
    accuracy = (rows.argmax(dim=1) == data.data.test_labels).float().mean()
    (tested,) = trainer.test(model, data, verbose=False)
    assert accuracy == pytest.approx(tested["test/accuracy"])
    assert accuracy > 0.8


def test_hyperparameters_are_filled_and_restored(
    make_trainer: Any, data: MNISTDataModule, tmp_path: Path
) -> None:
    model, trainer = DigitClassifier(label_smoothing=0.1), make_trainer(max_epochs=1)
    assert model.hparams["label_smoothing"] == 0.1
    assert data.hparams["batch_size"] == 100
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    loaded = DigitClassifier.load_from_checkpoint(tmp_path / "saved.ckpt", weights_only=True)
    assert loaded.hparams["label_smoothing"] == 0.1
    other = MNISTDataModule.load_from_checkpoint(tmp_path / "saved.ckpt", weights_only=True)
    assert other.dataset == "digits"


class _Forwards(DigitClassifier):
    """A subclass that passes its arguments on."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), **kwargs)


def test_a_subclass_that_forwards_arguments_is_loaded_from_a_checkpoint(
    make_trainer: Any, data: MNISTDataModule, tmp_path: Path
) -> None:
    trainer = make_trainer(max_epochs=1)
    trainer.fit(_Forwards(label_smoothing=0.2), data)
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    loaded = _Forwards.load_from_checkpoint(tmp_path / "saved.ckpt", weights_only=True)
    assert loaded.hparams["label_smoothing"] == 0.2


def test_the_tuner_finds_a_learning_rate_that_is_then_used(
    make_trainer: Any, data: MNISTDataModule
) -> None:
    model = DigitClassifier()
    Tuner(make_trainer(max_epochs=30)).lr_find(model, data, num_training=60)
    assert model.lr is not None and 1e-6 < model.lr < 1
    trainer = make_trainer(max_epochs=1)
    trainer.fit(model, data)
    assert trainer.optimizers[0].param_groups[0]["lr"] == model.lr


def test_the_tuner_finds_a_batch_size(make_trainer: Any, data: MNISTDataModule) -> None:
    trainer = make_trainer(max_epochs=1)
    found = Tuner(trainer).scale_batch_size(DigitClassifier(), datamodule=data, max_trials=2)
    assert data.batch_size == data.hparams["batch_size"] == found == 4


def test_overfit_batches_repeats_the_same_images(make_trainer: Any, data: MNISTDataModule) -> None:
    trainer = make_trainer(max_epochs=2, overfit_batches=1)
    trainer.fit(DigitClassifier(), data)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(0)
    first = next(iter(loader))
    loader.sampler.set_epoch(1)
    assert all(torch.equal(*pair) for pair in zip(first, next(iter(loader)), strict=True))


def test_a_sample_is_a_normalized_image_and_its_label(data: MNISTDataModule) -> None:
    data.setup()
    loader = data.train_dataloader()
    assert isinstance(loader, DataLoader)
    image, label = loader.dataset[3]
    assert image.shape == (1, 28, 28) and image.min() == pytest.approx(-0.4242, abs=1e-4)
    assert label == data.data.train_labels[data.train_indices[3]]
    assert len(loader.dataset) == 1300 and len(loader) == 13
    with pytest.raises(IndexError):
        loader.dataset[1300]


def test_fabric_trains_with_the_loader(data: MNISTDataModule) -> None:
    data.setup()
    fabric = Fabric(accelerator="cpu", devices=1)
    model = fabric.setup(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    loader = fabric.setup_dataloaders(data.train_dataloader())
    orders = []
    for _ in range(2):
        labels = []
        for images, targets in loader:
            optimizer.zero_grad()
            fabric.backward(functional.cross_entropy(model(images), targets))
            optimizer.step()
            labels.append(targets)
        orders.append(torch.cat(labels))
    assert len(orders[0]) == 1300 and not torch.equal(*orders)


def test_the_classifier_and_the_data_can_be_pickled(
    make_trainer: Any, data: MNISTDataModule
) -> None:
    model = DigitClassifier()
    make_trainer(max_epochs=1).fit(model, data)
    copies = pickle.loads(pickle.dumps((model, data)))
    for name, weight in copies[0].state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])
    assert copies[1].state_dict() == data.state_dict()


def test_ddp_spawn_trains_from_python(tmp_path: Path) -> None:
    script = """
from lightning.pytorch import Trainer
from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.training.lightning_module import DigitClassifier

if __name__ == "__main__":
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp_spawn", max_epochs=2,
                      logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(DigitClassifier(), MNISTDataModule("digits"))
    print("accuracy", float(trainer.callback_metrics["val/accuracy"]))
"""
    (tmp_path / "train.py").write_text(script)
    command = [sys.executable, "train.py"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("accuracy")[1]) > 0.3


class _LitMNIST(LightningModule):
    """A module as in Lightning's documentation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(784, 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        return functional.cross_entropy(self.layer(images.flatten(1)), labels)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        images, labels = batch
        hits = (self.layer(images.flatten(1)).argmax(dim=1) == labels).float()
        self.log("val_acc", hits.mean(), batch_size=len(labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.005)


def test_a_module_of_the_user_trains_with_the_data(
    make_trainer: Any, data: MNISTDataModule
) -> None:
    trainer = make_trainer(max_epochs=3)
    trainer.fit(_LitMNIST(), data)
    assert trainer.callback_metrics["val_acc"] > 0.8


def test_the_classifier_trains_with_the_loaders_of_a_user(make_trainer: Any) -> None:
    samples = [(torch.full((1, 28, 28), float(label)), label) for label in range(10)] * 20
    loader: DataLoader[Any] = DataLoader(samples, batch_size=20)  # type: ignore[arg-type]
    trainer = make_trainer(max_epochs=5)
    model = DigitClassifier(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    trainer.fit(model, loader)
    assert trainer.callback_metrics["train/loss"] < 100
    assert trainer.global_step == 50


@pytest.mark.parametrize("options", [{"precision": "bf16-mixed"}, {"accumulate_grad_batches": 4}])
def test_trainer_options_work_from_python(
    make_trainer: Any, data: MNISTDataModule, options: dict[str, Any]
) -> None:
    trainer = make_trainer(max_epochs=2, **options)
    trainer.fit(DigitClassifier(), data)
    assert trainer.callback_metrics["val/accuracy"] > 0.2


def test_a_stock_checkpoint_resumes_with_a_stock_trainer(
    make_trainer: Any, data: MNISTDataModule, tmp_path: Path
) -> None:
    trainer = make_trainer(max_epochs=1)
    trainer.fit(DigitClassifier(), data)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    resumed = make_trainer(max_epochs=2)
    path = tmp_path / "one.ckpt"
    resumed.fit(DigitClassifier(), MNISTDataModule("digits"), ckpt_path=path, weights_only=True)
    assert resumed.current_epoch == 2 and resumed.global_step == 26
