"""The command verify: it reports checks that pass and checks that fail."""

import re
from pathlib import Path

import pytest

from mnist_lightning.data.mnist_download import FILES
from tests.conftest import DIGITS, Command

pytestmark = pytest.mark.slow

LONGER = ["--trainer.max_epochs", "8"]


def test_every_check_passes_on_this_machine(command: Command, tmp_path: Path) -> None:
    result = command("verify", *DIGITS, *LONGER)
    assert result.status == 0, result.out
    assert result.out.count("passed  ") == 4
    assert "FAILED" not in result.out
    assert re.search(r"killed \d times \(after .*epoch \d", result.out)
    assert "all checks passed" in result.out
    assert list(tmp_path.iterdir()) == []


def test_a_failed_check_is_reported(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unstable.py").write_text(
        "import time\n"
        "from mnist_lightning.networks.classic_cnn import ClassicCNN\n"
        "class Unstable(ClassicCNN):\n"
        "    def forward(self, images):\n"
        "        return super().forward(images) * (1 + time.time() % 1 / 100)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    result = command("verify", *DIGITS, *LONGER, "--model.network", "unstable.Unstable")
    assert result.status == 1
    assert (
        "FAILED  the same seed gives the same weights: two runs with seed 42: they differ in"
        in result.out
    )
    assert "verify --trainer.deterministic true" in result.out
    assert "2 of 4 checks failed" in result.out


def test_the_error_of_a_failing_configuration_is_reported(command: Command) -> None:
    result = command("verify", *DIGITS, "--trainer.max_epochs", "0")
    assert result.status == 1
    assert (
        "a run with this configuration fails: mnist-lightning: error: Nothing to train"
        in result.err
    )


def test_damaged_data_fails_the_check(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_bytes(b"torn")
    result = command("verify", "--data.dataset", "mnist")
    assert result.status == 1
    assert "FAILED  the data is intact: " in result.out
    assert "train-images-idx3-ubyte" in result.out
