"""Tests that need a GPU."""

from pathlib import Path

import pytest
import torch

from mnist_lightning.cli.verify import first_difference_of_runs
from mnist_lightning.runs.run_directory import Run
from tests.conftest import DIGITS, Command
from tests.fuzzing import run_cases

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

FIT = ("fit", *DIGITS, "--trainer.max_epochs", "3", "--trainer.accelerator", "gpu")


@pytest.mark.parametrize(
    "options",
    [
        ("--trainer.precision", "16-mixed"),
        ("--trainer.precision", "bf16-mixed"),
        ("--trainer.precision", "16-mixed", "--trainer.gradient_clip_val", "1"),
        ("--model.compile", "true"),
        ("--data.num_workers", "2", "--data.pin_memory", "true"),
    ],
)
def test_a_run_trains_on_the_gpu(command: Command, run_0: Run, options: tuple[str, ...]) -> None:
    result = command(*FIT, *options)
    assert result.status == 0, result.err
    assert run_0.summary()["device"] == torch.cuda.get_device_name()
    assert run_0.summary()["val/accuracy"] > 0.3


def test_the_same_seed_gives_the_same_bits(command: Command, run_0: Run) -> None:
    for _ in range(2):
        assert command(*FIT).status == 0
    other = Run(run_0.folder.with_name("version_1"))
    assert first_difference_of_runs(run_0, other) is None


def test_random_runs_are_resumed_exactly() -> None:
    for _, case, verdict in run_cases(4, 0, 4, more=["--trainer.accelerator", "gpu"]):
        assert verdict.kind in ("equal", "refused"), (case, verdict)


def test_a_nondeterministic_run_is_unverified(command: Command, run_0: Run) -> None:
    result = command(*FIT, "--trainer.deterministic", "false")
    assert "is not verified: --trainer.deterministic false on a GPU" in result.out
    assert run_0.summary()["resume"] == "unverified"


def test_a_nondeterministic_operation_is_reported_with_a_fix(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "warped.py").write_text(
        "import torch\n"
        "from torch.nn import functional as F\n"
        "from mnist_lightning.networks.classic_cnn import ClassicCNN\n"
        "class Warped(ClassicCNN):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.theta = torch.nn.Parameter(torch.eye(2, 3))\n"
        "    def forward(self, images):\n"
        "        theta = self.theta.expand(len(images), 2, 3)\n"
        "        grid = F.affine_grid(theta, images.shape, align_corners=False)\n"
        "        return super().forward(F.grid_sample(images, grid, align_corners=False))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    result = command(*FIT, "--model.network", "warped.Warped")
    assert (result.status, "give --trainer.deterministic false" in result.err) == (1, True)
    result = command(*FIT, "--model.network", "warped.Warped", "--trainer.deterministic", "false")
    assert result.status == 0, result.err


def test_the_weights_file_contains_tensors_on_the_cpu(command: Command, run_0: Run) -> None:
    assert command(*FIT, "--trainer.callbacks+=WeightsFile").status == 0
    weights = torch.load(run_0.folder / "model.pth", weights_only=True)
    assert {weight.device.type for weight in weights.values()} == {"cpu"}


def test_a_run_of_a_gpu_is_tested_on_the_cpu(command: Command, run_0: Run) -> None:
    assert command(*FIT).status == 0
    result = command("test", "0", "--trainer.accelerator", "cpu")
    assert result.status == 0, result.err
