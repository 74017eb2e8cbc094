"""What hangs on a GPU, where there is one."""

import pytest
import torch

from mnist_lightning.runs.run_directory import Run
from mnist_lightning.verify import first_difference_of_runs
from tests.conftest import DIGITS, Command

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
def test_it_trains(command: Command, run_0: Run, options: tuple[str, ...]) -> None:
    result = command(*FIT, *options)
    assert result.status == 0, result.err
    assert run_0.summary()["device"] == torch.cuda.get_device_name()
    assert run_0.summary()["val/accuracy"] > 0.3


def test_deterministic_the_same_seed_gives_the_same_bits(command: Command, run_0: Run) -> None:
    for _ in range(2):
        assert command(*FIT, "--trainer.deterministic", "true").status == 0
    other = Run(run_0.folder.with_name("version_1"))
    assert first_difference_of_runs(run_0, other) is None


def test_trained_on_a_gpu_it_is_tested_on_a_processor(command: Command, run_0: Run) -> None:
    assert command(*FIT).status == 0
    result = command("test", "0", "--trainer.accelerator", "cpu")
    assert result.status == 0, result.err
