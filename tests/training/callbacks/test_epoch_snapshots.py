"""The snapshots of a run: their values are those of the run, and they do not change it."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
from torch import Tensor

from mnist_lightning.cli.verify import first_difference_of_runs
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.data.splits import split
from mnist_lightning.evaluation import metrics
from mnist_lightning.networks import inspection, registry
from mnist_lightning.networks.tiny_cnn import TinyCNN
from mnist_lightning.preprocessing.normalization import normalize
from mnist_lightning.runs import snapshots
from mnist_lightning.runs.checkpoint import network_weights, read_checkpoint
from mnist_lightning.runs.metrics_csv import METRICS_FILE, read_metrics
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.runs.snapshots import Snapshot, list_epochs, read_snapshot, snapshot_path
from mnist_lightning.training.callbacks import epoch_snapshots
from mnist_lightning.training.lightning_module import DigitClassifier
from tests.conftest import DIGITS, Command

VAL_SIZE = 140  # of the 1,500 bundled digits for training
AVERAGE = ["--trainer.callbacks=ExponentialMovingAverage", "--trainer.callbacks.decay=0.9"]


def epochs(number: int) -> list[str]:
    return ["--trainer.max_epochs", str(number)]


def snapshot(run: Run, epoch: int) -> Snapshot:
    found = read_snapshot(run.snapshots, epoch)
    assert found is not None
    return found


def weights_of(found: Snapshot) -> np.ndarray[Any, np.dtype[np.float64]]:
    assert found.filters is not None
    values = np.frombuffer(found.filters.values, np.int8).reshape(found.filters.shape)
    return values * found.filters.scale / 127


def validation_data() -> tuple[Tensor, Tensor]:
    """Return the pixels and labels of the validation images."""
    data = SOURCES["digits"].load(Path())
    indices = split(len(data.train_labels), VAL_SIZE, 0)[1]
    return data.train_images[indices], data.train_labels[indices]


@pytest.mark.parametrize(
    "options",
    [
        ["--model.network", "ClassicCNN"],
        ["--model.network", "MultilayerPerceptron"],
        ["--model.network", "BatchNormCNN", *AVERAGE],
    ],
    ids=["convolution", "linear", "average"],
)
def test_a_snapshot_has_the_values_of_the_saved_weights(
    command: Command, run_0: Run, options: list[str]
) -> None:
    size = ["--data.val_size", str(VAL_SIZE)]
    assert command("fit", *DIGITS, *epochs(2), *options, *size).status == 0
    assert list_epochs(run_0.snapshots) == [0, 1, 2]
    checkpoint = read_checkpoint(run_0.recent())
    network = registry.build(checkpoint["network"], (), network_weights(checkpoint))
    pixels, labels = validation_data()
    probabilities = inspection.compute_logits(network, normalize(pixels)).softmax(dim=1).numpy()

    last = snapshot(run_0, 2)
    assert (last.epoch, last.step) == (2, checkpoint["global_step"])
    expected = metrics.confusion(labels.numpy(), probabilities.argmax(axis=1))
    assert last.confusion == expected.tolist()
    assert last.digit.pixels == pixels[0].numpy().tobytes()
    assert (last.digit.label, last.digit.part) == (int(labels[0]), "validation")
    assert last.digit.probabilities == pytest.approx(probabilities[0].tolist(), abs=2e-6)
    weights = inspection.first_layer_weights(network)
    assert weights is not None
    assert last.filters is not None
    shown = weights[: last.filters.shape[0]].numpy()
    assert last.filters.total == len(weights)
    assert np.abs(weights_of(last) - shown).max() <= last.filters.scale / 127
    assert last.filters.scale == pytest.approx(float(np.abs(shown).max()))


def test_the_counts_of_each_epoch_give_its_logged_accuracy(command: Command, run_0: Run) -> None:
    assert command("fit", *DIGITS, *epochs(3)).status == 0
    rows = [row for row in read_metrics(run_0.folder / METRICS_FILE) if row["epoch"]]
    for epoch, row in enumerate(rows, start=1):
        confusion = np.array(snapshot(run_0, epoch).confusion)
        accuracy = confusion.trace() / confusion.sum()
        assert float(row["val/accuracy"]) == pytest.approx(accuracy, abs=1e-6)
        assert snapshot(run_0, epoch).step == int(row["step"])
    filters = [weights_of(snapshot(run_0, epoch)) for epoch in range(4)]
    assert all(np.abs(a - b).max() > 0 for a, b in pairwise(filters))
    first = snapshot(run_0, 0)
    assert (first.step, first.confusion) == (0, None)
    assert first.digit.probabilities is not None
    assert max(first.digit.probabilities) < 0.5  # it has learned nothing yet
    sizes = [path.stat().st_size for path in run_0.snapshots.iterdir()]
    assert max(sizes) < 5_000


def test_a_snapshot_of_a_linear_layer_is_small(command: Command, run_0: Run) -> None:
    network = ["--model.network", "MultilayerPerceptron"]
    assert command("fit", *DIGITS, *epochs(1), *network).status == 0
    assert snapshot_path(run_0.snapshots, 1).stat().st_size < 15_000
    filters = snapshot(run_0, 1).filters
    assert filters is not None
    assert filters.shape == (12, 28, 28)


RANDOM_NETWORK = '''
import random, numpy, torch
from torch import nn

class Noisy(nn.Module):
    """Draws random numbers, also in evaluation; its first layer shows nothing as an image."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(784, 10))

    def forward(self, images):
        random.random()
        numpy.random.rand()
        return self.layers(self.norm(images + 0.1 * torch.rand_like(images)))
'''


@pytest.mark.parametrize("options", [[], ["--data.val_size", "0"], AVERAGE], ids=str)
def test_snapshots_do_not_change_a_bit(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    (tmp_path / "own.py").write_text(RANDOM_NETWORK)
    fit = ["fit", *DIGITS, *epochs(2), "--model.network", "own.Noisy", *options]
    assert command(*fit, "--run_dir", "with").status == 0
    for hook in ("on_train_start", "on_train_epoch_end", "on_train_end"):
        monkeypatch.setattr(epoch_snapshots.EpochSnapshots, hook, lambda *_: None)
    assert command(*fit, "--run_dir", "without").status == 0
    runs = Run(tmp_path / "with"), Run(tmp_path / "without")
    assert [run.snapshots.exists() for run in runs] == [True, False]
    assert first_difference_of_runs(*runs) is None
    assert snapshot(runs[0], 2).filters is None


def test_without_validation_images_a_training_image_is_predicted(
    command: Command, run_0: Run
) -> None:
    options = ["--data.val_size", "0", "--model.network", "BatchNormCNN", *AVERAGE]
    assert command("fit", *DIGITS, *epochs(2), *options).status == 0
    last = snapshot(run_0, 2)
    data = SOURCES["digits"].load(Path())
    assert last.confusion is None
    assert last.digit.part == "training"
    assert last.digit.pixels == data.train_images[0].numpy().tobytes()
    assert last.digit.label == int(data.train_labels[0])
    checkpoint = read_checkpoint(run_0.recent())  # its weights are the average
    network = registry.build(checkpoint["network"], (), network_weights(checkpoint))
    logits = inspection.compute_logits(network, normalize(data.train_images[:1]))
    expected = logits.softmax(dim=1)[0].tolist()
    assert last.digit.probabilities == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("options", "validated"),
    [
        (["--trainer.check_val_every_n_epoch", "2"], [2]),
        (["--trainer.val_check_interval", "9"], []),  # of 13 batches
        (["--trainer.val_check_interval", "4", "--trainer.accumulate_grad_batches", "4"], []),
        (["--trainer.limit_val_batches", "0"], []),
        (["--trainer.limit_val_batches", "1", "--data.eval_batch_size", "30"], [1, 2]),
    ],
    ids=str,
)
def test_only_a_validation_at_the_end_of_the_epoch_is_counted(
    command: Command, run_0: Run, options: list[str], validated: list[int]
) -> None:
    assert command("fit", *DIGITS, *epochs(2), *options).status == 0
    found = [snapshot(run_0, epoch) for epoch in (0, 1, 2)]
    assert [each.epoch for each in found if each.confusion is not None] == validated
    assert {each.digit.part for each in found} == {"validation"}
    assert all(each.digit.probabilities is not None for each in found)
    if "--data.eval_batch_size" in options:
        assert np.array(found[1].confusion).sum() == 30


def test_a_resumed_run_has_the_same_snapshots(command: Command, tmp_path: Path) -> None:
    fit = ["fit", *DIGITS, "--run_dir"]
    assert command(*fit, "whole", *epochs(4)).status == 0
    assert command(*fit, "resumed", *epochs(2)).status == 0
    whole, resumed = Run(tmp_path / "whole"), Run(tmp_path / "resumed")
    # As if it had been killed before the checkpoint of its third epoch.
    snapshot_path(resumed.snapshots, 3).write_text("incomplete")
    (resumed.snapshots / ".epoch_0003.json.0123456789abcdef.tmp").write_text("incomplete")
    assert command("resume", "resumed", *epochs(4)).status == 0
    names = [sorted(path.name for path in run.snapshots.iterdir()) for run in (whole, resumed)]
    assert names[0] == names[1] == [f"epoch_{epoch:04}.json" for epoch in range(5)]
    for name in names[0]:
        contents = [(run.snapshots / name).read_bytes() for run in (whole, resumed)]
        assert contents[0] == contents[1], name


def test_a_file_in_place_of_the_folder_is_renamed(command: Command, run_0: Run) -> None:
    assert command("fit", *DIGITS, *epochs(1), "--dashboards", "none").status == 0
    run_0.snapshots.write_text("in the way")
    result = command("resume", "0", *epochs(2), "--dashboards", "basic")
    assert result.status == 0, result.err
    assert "snapshots is damaged; renamed the file to snapshots.damaged-1" in result.out
    assert list_epochs(run_0.snapshots) == [2]


def test_snapshots_are_not_written_through_a_link(
    command: Command, run_0: Run, tmp_path: Path
) -> None:
    assert command("fit", *DIGITS, *epochs(1)).status == 0
    precious = tmp_path / "precious.json"
    precious.write_text("precious")
    path = snapshot_path(run_0.snapshots, 2)
    path.symlink_to(precious)
    assert command("resume", "0", *epochs(2)).status == 0
    assert precious.read_text() == "precious"
    assert not path.is_symlink()
    outside = tmp_path / "outside"
    run_0.snapshots.rename(outside)
    run_0.snapshots.symlink_to(outside)
    result = command("resume", "0", *epochs(3))
    assert result.status == 1
    assert "snapshots is a symbolic link, which may lead out of" in result.err
    assert list_epochs(outside) == [0, 1, 2]


def test_the_run_that_auto_resume_continues_must_not_write_through_a_link(
    command: Command, run_0: Run, tmp_path: Path
) -> None:
    automatic = [*DIGITS, "--auto_resume", "true"]
    assert command("fit", *automatic, *epochs(2)).status == 0
    outside = tmp_path / "outside"
    run_0.snapshots.rename(outside)
    (outside / ".precious.tmp").write_text("precious")
    (outside / "epoch_0300.json").write_text("precious")
    run_0.snapshots.symlink_to(outside)
    result = command("fit", *automatic, *epochs(3))
    assert result.status == 1
    assert "snapshots is a symbolic link, which may lead out of" in result.err
    assert (outside / ".precious.tmp").read_text() == "precious"
    assert list_epochs(outside) == [0, 1, 2, 300]


def test_a_snapshot_that_cannot_be_written_does_not_end_the_training(
    command: Command, run_0: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshots, "write_snapshot", fail)
    result = command("fit", *DIGITS, *epochs(2))
    assert result.status == 0, result.err
    assert result.err.count("no space left on device; the training continues") == 1


def test_a_limit_within_an_epoch_has_a_snapshot_of_its_end(command: Command, run_0: Run) -> None:
    validated = ["--trainer.val_check_interval", "2"]  # a validation follows the last step
    assert command("fit", *DIGITS, "--trainer.max_steps", "15", *validated).status == 0
    assert [snapshot(run_0, epoch).step for epoch in (0, 1, 2)] == [0, 13, 15]
    partial = snapshot(run_0, 2)
    assert partial.confusion is None
    assert partial.digit.probabilities is not None
    assert command("resume", "0", "--trainer.max_steps", "26").status == 0
    assert snapshot(run_0, 2).step == 26
    assert list_epochs(run_0.snapshots) == [0, 1, 2]


def test_no_dashboards_and_a_development_run_have_no_snapshots(
    command: Command, run_0: Run, tmp_path: Path
) -> None:
    assert command("fit", *DIGITS, *epochs(1), "--dashboards", "none").status == 0
    assert not run_0.snapshots.exists()
    assert command("fit", *DIGITS, "--trainer.fast_dev_run", "1").status == 0
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]


@pytest.mark.filterwarnings("ignore")
def test_a_diverged_run_has_no_filters_and_no_probabilities(command: Command, run_0: Run) -> None:
    options = ["--model.optimizer", "SGD", "--model.optimizer.lr", "1e30"]
    assert command("fit", *DIGITS, *epochs(1), *options).status == 0
    last = snapshot(run_0, 1)
    assert last.filters is None
    assert last.digit.probabilities is None
    assert np.array(last.confusion).sum() > 0


def test_a_compiled_network_is_not_compiled_for_one_image() -> None:
    model = DigitClassifier(TinyCNN(), compile=True)
    model.network.compile(backend="eager")
    model.network(torch.zeros(100, 1, 28, 28))
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert compiled > 0
    probabilities = epoch_snapshots._predict(model, torch.zeros(28, 28, dtype=torch.uint8))
    assert float(probabilities.sum()) == pytest.approx(1)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled
    model.network(torch.zeros(7, 1, 28, 28))  # the counter would notice
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > compiled


def test_filters_are_rounded_to_eight_bits() -> None:
    weights = torch.tensor([[[0.5, -1.0], [0.25, 0.0]]])
    filters = epoch_snapshots._quantize(weights)
    assert filters is not None
    assert (filters.total, filters.shape, filters.scale) == (1, (1, 2, 2), 1.0)
    assert list(np.frombuffer(filters.values, np.int8)) == [64, -127, 32, 0]
    zero = epoch_snapshots._quantize(torch.zeros(3, 1, 1))
    assert zero is not None
    assert (zero.scale, zero.values) == (0.0, bytes(3))
    many = epoch_snapshots._quantize(torch.ones(500, 28, 28))
    assert many is not None
    assert (many.total, many.shape) == (500, (12, 28, 28))
    for other in (
        None,
        torch.full((1, 2, 2), math.nan),
        torch.full((1, 2, 2), math.inf),
        torch.full((1, 2, 2), 1e20),
        torch.ones(1, 33, 33),
    ):
        assert epoch_snapshots._quantize(other) is None
