"""DigitClassifier from Python, with Lightning's own Trainer and checkpoints."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from mnist_lightning import DigitClassifier, MNISTDataModule
from mnist_lightning.errors import UserError
from mnist_lightning.networks.classic_cnn import ClassicCNN
from mnist_lightning.runs.checkpoint import read_checkpoint
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.training.lr_schedules import Cosine, OneCycle
from mnist_lightning.training.metrics import LossAndAccuracy
from tests.conftest import DIGITS, Command

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:"),  # lightning's own call
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval"),
]


def fit(
    folder: Path, classifier: DigitClassifier, epochs: int = 1, *callbacks: Callback
) -> Trainer:
    seed_everything(1)
    trainer = Trainer(
        max_epochs=epochs,
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        callbacks=list(callbacks),
    )
    trainer.fit(classifier, MNISTDataModule("digits"))
    return trainer


def test_lightning_s_trainer_trains_and_tests(tmp_path: Path) -> None:
    classifier = DigitClassifier(ClassicCNN(dropout=0.1), lambda p: torch.optim.Adam(p, lr=5e-3))
    trainer = fit(tmp_path, classifier, epochs=4)
    metrics = trainer.test(classifier, MNISTDataModule("digits"), verbose=False)[0]
    assert metrics["test/accuracy"] > 0.85
    assert trainer.validate(classifier, MNISTDataModule("digits"), verbose=False)[0].keys() == {
        "val/loss",
        "val/accuracy",
    }
    events = EventAccumulator(str(trainer.log_dir)).Reload()
    for tag in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        assert [event.step for event in events.Scalars(tag)][:4] == [13, 26, 39, 52]


def test_a_checkpoint_has_only_primitives_and_restores_the_classifier(tmp_path: Path) -> None:
    trainer = fit(tmp_path, DigitClassifier(ClassicCNN(dropout=0.1)))
    callback = trainer.checkpoint_callback
    assert isinstance(callback, ModelCheckpoint)
    path = callback.best_model_path
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["network"]["init_args"] == {"num_classes": 10, "dropout": 0.1}

    loaded = DigitClassifier.load_from_checkpoint(path, weights_only=True)
    assert isinstance(loaded.network, ClassicCNN)
    assert loaded.network.dropout == 0.1
    trained = trainer.lightning_module.state_dict()
    assert all(torch.equal(value, trained[key]) for key, value in loaded.state_dict().items())
    with pytest.raises(UserError, match=r"Network mismatch: .*'dropout': 0.1.*0.3"):
        DigitClassifier.load_from_checkpoint(path, network=ClassicCNN(dropout=0.3))


def test_means_weight_every_sample_equally() -> None:
    metrics = LossAndAccuracy()
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    labels = torch.tensor([0, 0, 0])
    for part in (slice(0, 2), slice(2, 3)):
        loss = nn.functional.cross_entropy(logits[part], labels[part])
        metrics.update(loss, logits[part], labels[part])
    means = metrics.compute()
    torch.testing.assert_close(means["loss"], nn.functional.cross_entropy(logits, labels))
    torch.testing.assert_close(means["accuracy"], torch.tensor(2 / 3))


def test_metrics_saved_and_loaded_at_any_batch_have_the_same_means() -> None:
    whole, first, second = LossAndAccuracy(), LossAndAccuracy(), LossAndAccuracy()
    torch.manual_seed(0)
    for index in range(200):
        loss, logits, labels = torch.rand(()), torch.randn(7, 10), torch.randint(10, (7,))
        whole.update(loss, logits, labels)
        if index == 70:
            second.load_state_dict(first.state_dict())
        (first if index < 70 else second).update(loss, logits, labels)
    assert whole.compute() == second.compute()
    assert int(whole.total) == 1400


class Rates(Callback):
    """Stores the learning rate of each step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *args: object) -> None:
        """Store the learning rate before the step."""
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("factory", "last"),
    [
        (OneCycle, 0.1 / 25 / 1e4),
        (partial(OneCycleLR, max_lr=0.1), 0.1 / 25 / 1e4),
        (Cosine, 0.1 * 0.5 * (1 + math.cos(math.pi * 25 / 26))),
    ],
)
def test_schedules_get_the_length_of_the_run(
    tmp_path: Path, factory: type[OneCycle], last: float
) -> None:
    classifier = DigitClassifier(optimizer=partial(SGD, lr=0.1), lr_scheduler=factory)
    rates = Rates()
    fit(tmp_path, classifier, 2, rates)
    assert len(rates.rates) == 26
    assert max(rates.rates) == pytest.approx(0.1, rel=0.02)
    assert rates.rates[-1] == pytest.approx(last)


def test_one_cycle_peaks_at_the_optimizer_s_rate() -> None:
    parameters = [nn.Parameter(torch.zeros(1))]
    optimizer = SGD(parameters, lr=0.2, momentum=0.9)
    schedule = OneCycle(optimizer, total_steps=100, pct_start=0.25)
    rates = []
    for _ in range(99):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert max(rates) == pytest.approx(0.2)
    assert rates.index(max(rates)) in (24, 25)


def test_cosine_warms_up_then_falls_to_zero() -> None:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = Cosine(optimizer, total_steps=100, warmup=0.1)
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)


def test_reduce_on_plateau_monitors_the_validation(tmp_path: Path) -> None:
    # A learning rate near 0 changes nothing: no epoch after the first one improves.
    factory = partial(ReduceLROnPlateau, patience=0, factor=0.5, eps=0.0)
    classifier = DigitClassifier(optimizer=partial(SGD, lr=1e-30), lr_scheduler=factory)
    trainer = fit(tmp_path, classifier, epochs=4)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-30 / 8)


def test_a_schedule_of_an_unbounded_run_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"positive --trainer\.max_epochs"):
        fit(tmp_path, DigitClassifier(lr_scheduler=OneCycle), epochs=-1)


def test_label_smoothing_applies_only_to_training(tmp_path: Path) -> None:
    torch.manual_seed(0)
    batch = torch.randn(8, 1, 28, 28), torch.arange(8)
    classifier = DigitClassifier(label_smoothing=0.2).eval()
    logits = classifier(batch[0])
    log_probabilities = logits.log_softmax(dim=1)
    plain = -log_probabilities[range(8), range(8)].mean()
    smoothed = 0.8 * plain - 0.2 * log_probabilities.mean()
    assert torch.allclose(classifier.training_step(batch, 0), smoothed)
    assert torch.allclose(classifier.loss(logits, batch[1]), plain)
    classifier.validation_step(batch, 0)
    assert torch.allclose(classifier.val_metrics.compute()["loss"], plain)


def test_means_are_exact_in_any_precision() -> None:
    metrics = DigitClassifier().to(torch.bfloat16).train_metrics
    logits = torch.zeros(3, 10, dtype=torch.bfloat16)
    for _ in range(1000):  # bfloat16 cannot count to 3,000
        metrics.update(torch.ones((), dtype=torch.bfloat16), logits, torch.zeros(3).long())
    assert metrics.compute() == {"loss": 1.0, "accuracy": 1.0}


def test_one_cycle_without_cycle_momentum_keeps_the_momentum() -> None:
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=0.1, betas=(0.7, 0.9))
    schedule = OneCycle(optimizer, total_steps=10, cycle_momentum=False)
    for _ in range(9):
        optimizer.step()
        schedule.step()
        assert optimizer.param_groups[0]["betas"] == (0.7, 0.9)


def test_reduce_on_plateau_takes_no_step_in_an_epoch_without_a_validation(
    command: Command, run_0: Run
) -> None:
    # With this threshold no value is an improvement.
    plateau = ["--model.lr_scheduler", "ReduceLROnPlateau", "--model.lr_scheduler.patience", "0"]
    never_better = ["--model.lr_scheduler.threshold", "1e9"]
    every = ["--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "4"]
    assert command("fit", *DIGITS, *plateau, *never_better, *every).status == 0
    schedule = read_checkpoint(run_0.recent())["lr_schedulers"][0]
    assert schedule["last_epoch"] == 0
