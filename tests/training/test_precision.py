"""bfloat16 is replaced on a CPU that computes it slowly, and only there."""

from pathlib import Path

import pytest
import torch

from mnist_lightning.runs.run_directory import Run
from mnist_lightning.training import precision
from mnist_lightning.training.precision import use_fast_precision
from tests.conftest import DIGITS, Command

SHORT = [*DIGITS, "--trainer.max_steps", "2", "--trainer.accelerator", "cpu"]


@pytest.fixture(params=[True, False])
def is_slow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return whether this processor counts as slow in bfloat16."""
    slow = {torch.backends.cpu.get_cpu_capability()} if request.param else set()
    monkeypatch.setattr(precision, "SLOW_CAPABILITIES", slow)
    precision._report.cache_clear()
    return bool(slow)


@pytest.mark.parametrize(
    ("trainer", "on_slow_cpu"),
    [
        ({"precision": "bf16-mixed", "accelerator": "cpu"}, "32-true"),
        ({"precision": "bf16", "accelerator": "cpu"}, "32-true"),
        ({"precision": "bf16-mixed", "accelerator": "gpu"}, "bf16-mixed"),
        ({"precision": "bf16-true", "accelerator": "cpu"}, "bf16-true"),
        ({"precision": "64-true", "accelerator": "cpu"}, "64-true"),
        ({"precision": None, "accelerator": "cpu"}, None),
        ({"accelerator": "cpu"}, None),
    ],
)
def test_only_mixed_bfloat16_on_a_slow_cpu_is_replaced(
    is_slow: bool, trainer: dict[str, str | None], on_slow_cpu: str | None
) -> None:
    given = trainer.get("precision")
    use_fast_precision(trainer := dict(trainer))
    assert trainer.get("precision") == (on_slow_cpu if is_slow else given)


def test_a_new_run_stores_and_reports_its_precision(
    is_slow: bool, command: Command, run_0: Run
) -> None:
    Path("bfloat16.yaml").write_text("trainer: {precision: bf16-mixed}\n")
    result = command("fit", "--config", "bfloat16.yaml", *SHORT)
    assert result.status == 0
    assert ("uses precision 32-true, not bf16-mixed" in result.out) == is_slow
    stored = "32-true" if is_slow else "bf16-mixed"
    assert run_0.read_config()["trainer"]["precision"] == stored


def test_the_command_line_prevents_it_and_a_resumed_run_keeps_its_precision(
    is_slow: bool, command: Command, run_0: Run
) -> None:
    for line in (
        ["fit", *SHORT, "--trainer.precision", "bf16-mixed"],
        ["resume", "0", "--trainer.max_steps", "4"],
        ["test", "0"],
    ):
        result = command(*line)
        assert result.status == 0, result.err
        assert "bfloat16" not in result.out
        assert run_0.read_config()["trainer"]["precision"] == "bf16-mixed"
