"""verify, as typed: it sees what holds, and what does not."""

import re
from pathlib import Path

import pytest

from mnist_lightning.data.mnist_download import FILES
from tests.conftest import DIGITS, Command

LONGER = ["--trainer.max_epochs", "8"]


def test_every_promise_holds_on_this_machine(command: Command, tmp_path: Path) -> None:
    result = command("verify", *DIGITS, *LONGER)
    assert result.status == 0, result.out
    assert result.out.count("holds   ") == 4
    assert "BROKEN" not in result.out
    assert re.search(r"killed \d times \(after .*epoch \d", result.out)
    assert "every promise holds here" in result.out
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_hold_is_said(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "moody.py").write_text(
        "import time\n"
        "from mnist_lightning.networks.classic_cnn import ClassicCNN\n"
        "class Moody(ClassicCNN):\n"
        "    def forward(self, images):\n"
        "        return super().forward(images) * (1 + time.time() % 1 / 100)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    result = command("verify", *DIGITS, *LONGER, "--model.network", "moody.Moody")
    assert result.status == 1
    assert (
        "BROKEN  the same seed gives the same bits: two runs of seed 42: they differ in"
        in result.out
    )
    assert "verify --trainer.deterministic true" in result.out
    assert "2 of 4 are broken" in result.out


def test_a_configuration_that_fails_is_told_in_its_own_words(command: Command) -> None:
    result = command("verify", *DIGITS, "--trainer.max_epochs", "0")
    assert result.status == 1
    assert (
        "a run of this configuration fails: mnist-lightning: error: there is nothing" in result.err
    )


def test_damaged_data_is_a_broken_promise(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_bytes(b"torn")
    result = command("verify", "--data.dataset", "mnist")
    assert result.status == 1
    assert "BROKEN  the data is whole: " in result.out
    assert "train-images-idx3-ubyte" in result.out
