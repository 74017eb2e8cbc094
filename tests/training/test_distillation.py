"""A network learns the probabilities of a teacher."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mnist_lightning.networks.registry import ARCHITECTURES
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.training.distillation import Teacher
from mnist_lightning.training.lightning_module import DigitClassifier
from tests.cli.checks import load_checkpoint
from tests.conftest import DIGITS, AddRun, Command
from tests.unsigned_files import unsigned_checkpoint

SHORT = ("--trainer.max_epochs", "1", "--dashboards", "none")
MLP = ("--model.network", "MultilayerPerceptron")
IMAGES = torch.randn(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6)


def test_the_loss_compares_the_probabilities_of_the_network_and_of_the_teacher() -> None:
    first, second = ARCHITECTURES["BatchNormCNN"](), ARCHITECTURES["ClassicCNN"]()
    model = DigitClassifier(ARCHITECTURES["MultilayerPerceptron"](), label_smoothing=0.1)
    model.teacher = Teacher([first, second], "two networks")
    model.train()
    loss = model.training_step((IMAGES, LABELS), 0)
    with torch.no_grad():
        both = [network.eval()(IMAGES).softmax(dim=1) for network in (first, second)]
    log_probabilities = model(IMAGES).log_softmax(dim=1)
    targets = 0.9 * (both[0] + both[1]) / 2 + 0.1 / 10
    expected = -(targets * log_probabilities).sum(dim=1).mean().item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_targets_of_non_digits_and_their_share_in_mixed_images_are_kept() -> None:
    teacher = Teacher([ARCHITECTURES["ClassicCNN"]()], "a network")
    probabilities = teacher(IMAGES)
    targets = torch.nn.functional.one_hot(LABELS, 10).float()
    assert torch.equal(teacher.targets(IMAGES, targets), probabilities)
    targets[2] = 0.1
    targets[3] = torch.lerp(targets[3], targets[2], 0.25)
    found = teacher.targets(IMAGES, targets)
    assert found[2].tolist() == pytest.approx([0.1] * 10)
    expected = 0.75 * probabilities[3] + 0.025
    assert found[3].tolist() == pytest.approx(expected.tolist())
    assert torch.equal(found[:2], probabilities[:2])
    wide = teacher.targets(IMAGES, torch.full((6, 12), 1 / 12))
    assert wide.flatten().tolist() == pytest.approx([1 / 12] * 72)


def test_a_teacher_does_not_learn() -> None:
    model = DigitClassifier(ARCHITECTURES["MultilayerPerceptron"]())
    model.teacher = Teacher([ARCHITECTURES["BatchNormCNN"]()], "a network with statistics")
    before = {name: value.clone() for name, value in model.teacher.state_dict().items()}
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    torch.autograd.backward(model.training_step((IMAGES, LABELS), 0))
    optimizer.step()
    after = model.teacher.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_run_learns_from_several_runs_and_resumes_without_them(
    command: Command, add_run: AddRun, run_0: Run
) -> None:
    add_run(*DIGITS, *SHORT)
    add_run(*DIGITS, *SHORT, "--seed_everything", "1")
    result = command("fit", *DIGITS, *SHORT, *MLP, "--teacher", "0,1")
    assert result.status == 0, result.err
    assert "eval mode" not in result.err
    run = Run(run_0.folder.with_name("version_2"))
    source = run.summary()["teacher"]
    names = [f"lightning_logs/version_{number}/checkpoints/best.ckpt" for number in (0, 1)]
    assert [part.split(" sha256:")[0] for part in source.split(", ")] == names
    assert f"teacher: {source}" in result.out
    assert "teacher" not in run.config.read_text()
    compared = " ".join(command("runs", "1", "2").out.split())
    assert f"teacher 1: None 2: {source}" in compared, compared
    for number in (0, 1):
        shutil.rmtree(run_0.folder.with_name(f"version_{number}"))
    for arguments in (["resume", "2", "--trainer.max_epochs", "2"], ["test", "2"], ["report", "2"]):
        result = command(*arguments)
        assert result.status == 0, result.err
    assert run.summary()["teacher"] == source
    saved: Any = load_checkpoint(run.best)
    assert saved["teacher"]["source"] == source


def test_a_run_with_another_teacher_is_not_continued(command: Command, run_0: Run) -> None:
    options = ("fit", *DIGITS, *SHORT, *MLP, "--auto_resume", "true")
    assert command(*options).status == 0
    assert "No matching run" in command(*options, "--teacher", "pretrained").out
    assert command(*options, "--teacher", "0").status == 0
    finished = command(*options, "--teacher", "pretrained")
    assert "version_1 is finished" in " ".join(finished.out.split())


def test_mistakes_are_reported_before_the_training(command: Command, run_0: Run) -> None:
    fit = ("fit", *DIGITS, *SHORT, *MLP)
    assert "run not found: 9" in command(*fit, "--teacher", "9").err
    assert command(*fit, "--model.network.num_classes", "12").status == 0
    result = command(*fit, "--teacher", "0")
    assert result.status == 2
    assert "The teacher has 12 classes, the network only 10." in result.err
    result = command("fit", "--ckpt_path", "0", "--teacher", "0")
    assert "--ckpt_path resumes a run, --teacher starts a new run: give only one" in result.err
    assert not run_0.folder.with_name("version_1").exists()


def _remove_networks(checkpoint: dict[str, Any]) -> None:
    checkpoint["teacher"]["networks"] = []


def _enlarge(checkpoint: dict[str, Any]) -> None:
    path = "mnist_lightning.networks.residual_cnn.ResidualCNN"
    checkpoint["teacher"]["networks"] = [{"class_path": path, "init_args": {"width": 10**6}}]


def _name_a_class(checkpoint: dict[str, Any]) -> None:
    checkpoint["teacher"]["networks"][0]["class_path"] = "os.system"


def _describe_nothing(checkpoint: dict[str, Any]) -> None:
    checkpoint["teacher"] = {"source": 3}


def _remove_weights(checkpoint: dict[str, Any]) -> None:
    weights = checkpoint["state_dict"]
    for name in [name for name in weights if name.startswith("teacher.")]:
        del weights[name]


def _remove_description(checkpoint: dict[str, Any]) -> None:
    del checkpoint["teacher"]


@pytest.mark.parametrize(
    "edit",
    [
        _remove_networks,
        _enlarge,
        _name_a_class,
        _describe_nothing,
        _remove_weights,
        _remove_description,
    ],
)
def test_an_altered_teacher_is_refused(
    command: Command, add_run: AddRun, run_0: Run, edit: Callable[[dict[str, Any]], None]
) -> None:
    add_run(*DIGITS, *SHORT, *MLP, "--teacher", "pretrained")
    checkpoint: Any = load_checkpoint(run_0.recent())
    edit(checkpoint)
    for path in run_0.checkpoints.glob("*.ckpt"):
        path.write_bytes(unsigned_checkpoint(checkpoint))
    result = command("resume", "0", "--trainer.max_epochs", "2", "--trust")
    assert result.status in (1, 2), result.out
    assert "looks like a bug" not in result.err
    assert "Traceback" not in result.err


def test_a_stock_network_can_be_a_teacher_in_python(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    probabilities = Teacher([network], "a linear network")(IMAGES)
    assert torch.allclose(probabilities, network(IMAGES).softmax(dim=1))
    assert not any(parameter.requires_grad for parameter in network.parameters())
