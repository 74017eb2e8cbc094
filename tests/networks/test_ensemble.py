"""Ensembles and test-time augmentation."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession

from mnist_lightning import UserError, load
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.networks.classic_cnn import ClassicCNN
from mnist_lightning.networks.ensemble import Ensemble, ShiftAveraging
from mnist_lightning.networks.multilayer_perceptron import MultilayerPerceptron
from mnist_lightning.preprocessing.normalization import PAPER
from mnist_lightning.runs import lookup, run_directory
from mnist_lightning.runs.predictions_csv import read_predictions
from tests.conftest import DIGITS, AddRun, Command
from tests.images import draw_seven

PIXELS = SOURCES["digits"].load(Path()).test_images


@pytest.fixture
def three_runs(command: Command, add_run: AddRun) -> Command:
    """A command in a directory with three runs of two architectures."""
    few = ("--trainer.max_epochs", "2", "--dashboards", "none")
    networks = ("MultilayerPerceptron", "MultilayerPerceptron", "ClassicCNN")
    for seed, network in enumerate(networks):
        options = ("--model.network", network, "--seed_everything", str(seed))
        add_run(*DIGITS, *options, *few)
    return command


def test_an_ensemble_gives_the_mean_of_probabilities() -> None:
    networks = [ClassicCNN().eval(), MultilayerPerceptron().eval()]
    images = torch.randn(5, 1, 28, 28)
    with torch.no_grad():
        expected = torch.stack([network(images).softmax(dim=1) for network in networks]).mean(dim=0)
        actual = Ensemble(networks)(images)
    assert torch.allclose(actual.exp(), expected, atol=1e-6)
    assert torch.allclose(actual.softmax(dim=1), expected, atol=1e-6)


def test_shifts_give_the_mean_over_an_image_and_its_shifted_copies() -> None:
    network = ClassicCNN().eval()
    images = torch.randn(5, 1, 28, 28)
    wide = torch.full((5, 1, 30, 30), PAPER)
    wide[:, :, 1:29, 1:29] = images
    views = [
        wide[:, :, row : row + 28, column : column + 28] for row in range(3) for column in range(3)
    ]
    with torch.no_grad():
        expected = torch.stack([network(view).softmax(dim=1) for view in views]).mean(dim=0)
        assert torch.allclose(ShiftAveraging(network, 1, PAPER)(images).exp(), expected, atol=1e-6)
        alone = network(images).softmax(dim=1)
        assert torch.allclose(ShiftAveraging(network, 0, PAPER)(images).exp(), alone, atol=1e-6)


def test_a_test_with_shifts_is_saved_beside_the_predictions(three_runs: Command) -> None:
    before = Path("lightning_logs/version_2/predictions.csv").read_bytes()
    result = three_runs("test", "2", "--shifts", "1")
    assert result.status == 0, result.err
    assert Path("lightning_logs/version_2/predictions.csv").read_bytes() == before
    table_path = Path("lightning_logs/version_2/checkpoints/best.digits.shifts1.csv")
    assert str(table_path) in result.out.replace("\n", "")
    correct = (table := read_predictions(table_path)).predicted == table.true
    assert f"{correct.sum()} of 297" in result.out
    assert "shifted by up to 1 pixel" in result.out
    assert f"ensemble {100 * correct.mean():.2f} %" in result.out
    assert three_runs("validate", "0,2", "--shifts=2").status == 0
    for wrong in ("5", "-1", "much"):
        refused = three_runs("test", "2", "--shifts", wrong)
        assert refused.status == 2
        assert f"--shifts: invalid value {wrong}; " in refused.err


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("best", ["best"]),
        ("3,5", ["3", "5"]),
        ("3..6", ["3", "4", "5", "6"]),
        ("1..2,7,1", ["1", "2", "7"]),
        ("some/folder", ["some/folder"]),
        ("3,", ["3"]),
        ("0," * 400 + "1", ["0", "1"]),
        ("", [""]),
    ],
)
def test_a_reference_to_several_runs_is_expanded(reference: str, expected: list[str]) -> None:
    assert lookup.expand_references(reference) == expected


def test_a_folder_with_a_comma_is_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a,b").mkdir()
    assert lookup.expand_references("a,b") == ["a,b"]


def test_an_ensemble_is_tested_and_compared_with_its_members(three_runs: Command) -> None:
    result = three_runs("test", "0..2")
    assert result.status == 0, result.err
    table = read_predictions(Path("lightning_logs/ensemble_0_1_2.digits.csv"))
    correct = table.predicted == table.true
    assert f"{correct.sum()} of 297" in result.out
    members = [
        read_predictions(run.predictions) for run in run_directory.list_runs(Path("lightning_logs"))
    ]
    mean = np.mean([member.probabilities for member in members], axis=0)
    assert table.probabilities == pytest.approx(mean, abs=1e-5)
    rows = re.findall(r"│ (\d) +│ +([\d.]+) % │ +(\d+) │ +(\d+) │", result.out)
    for (name, accuracy, together, alone), member in zip(rows, members, strict=True):
        own = member.predicted == member.true
        assert float(accuracy) == pytest.approx(100 * own.mean(), abs=0.006), name
        assert int(together) == (correct & ~own).sum()
        assert int(alone) == (own & ~correct).sum()
    means = re.search(r"mean of the members ([\d.]+) %, ensemble ([\d.]+) %", result.out)
    assert means is not None
    assert float(means[2]) == pytest.approx(100 * correct.mean(), abs=0.006)
    assert three_runs("validate", "0,2").status == 0


def test_the_predictions_of_an_ensemble_are_saved_beside_its_members(
    three_runs: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path.cwd() / "lightning_logs"
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    result = three_runs("test", f"{folder / 'version_0'},{folder / 'version_1'}")
    assert result.status == 0, result.err
    assert list(Path.cwd().iterdir()) == []
    assert (folder / "ensemble_0_1.digits.csv").is_file()


def test_an_ensemble_predicts_and_is_exported(three_runs: Command) -> None:
    draw_seven().save("seven.png")
    assert three_runs("predict", "seven.png", "--run", "0,1,2").status == 0
    result = three_runs("export", "0,1,2", "--format", "onnx", "--softmax")
    assert "297 of 297 labels equal" in result.out
    folder = Path("lightning_logs/ensemble_0_1_2/export/onnx")
    assert "# Ensemble of 3, a classifier" in (folder / "MODEL_CARD.md").read_text()
    (actual,) = InferenceSession(folder / "model.onnx").run(None, {"pixels": PIXELS.numpy()})
    alone = [load(str(number)) for number in range(3)]
    images = (PIXELS.float().unsqueeze(1) / 255 - 0.1307) / 0.3081
    expected = torch.stack([one.probabilities(images) for one in alone]).mean(dim=0)
    assert actual == pytest.approx(expected.numpy(), abs=1e-5)
    for kind in ("pth", "safetensors", "html"):
        error = three_runs("export", "0,1", "--format", kind).err
        assert f"{kind} takes one RUN; for an ensemble use onnx, int8 or pt2" in error


def test_runs_that_cannot_form_an_ensemble_are_reported(three_runs: Command) -> None:
    assert "run not found: 7" in three_runs("test", "0,7").err
    assert "a run is given twice" in three_runs("test", "0,version_0").err
    few = ("--trainer.max_epochs", "1", "--dashboards", "none")
    three_runs("fit", *DIGITS, *few, "--data.split_seed", "5")
    assert three_runs("test", "0,3").status == 0
    assert "split_seed differs: 0 of 0, 5 of 3" in three_runs("validate", "0,3").err
    with pytest.raises(UserError, match=r"different numbers of classes: 10, 11"):
        Ensemble([ClassicCNN(), ClassicCNN(num_classes=11)])
