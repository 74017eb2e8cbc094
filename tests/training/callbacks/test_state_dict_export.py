"""The file with the weights after every epoch."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from mnist_lightning import DigitClassifier, MNISTDataModule
from mnist_lightning.networks.classic_cnn import ClassicCNN
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.training.callbacks.state_dict_export import WeightsFile
from tests.conftest import DIGITS, Command

OPTIONS = [
    *DIGITS,
    "--trainer.callbacks",
    "mnist_lightning.training.callbacks.state_dict_export.WeightsFile",
]


@pytest.mark.parametrize("logger", ["true", "false"])
def test_the_file_is_a_plain_state_dict_in_the_run_directory(
    command: Command, run_0: Run, tmp_path: Path, logger: str
) -> None:
    command("fit", *OPTIONS, "--trainer.max_epochs", "1", "--trainer.logger", logger)
    weights = torch.load(run_0.folder / "model.pth", weights_only=True)
    ClassicCNN().load_state_dict(weights)
    assert [path.name for path in tmp_path.iterdir()] == ["lightning_logs"]


def test_fast_dev_run_writes_no_file(command: Command, tmp_path: Path) -> None:
    command("fit", *OPTIONS, "--trainer.fast_dev_run", "true")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore")
def test_with_lightning_s_trainer_the_file_is_in_the_log_folder(tmp_path: Path) -> None:
    trainer = Trainer(
        default_root_dir=tmp_path, max_epochs=1, callbacks=[WeightsFile("weights.pth")]
    )
    trainer.fit(DigitClassifier(), MNISTDataModule("digits"))
    assert (tmp_path / "lightning_logs" / "version_0" / "weights.pth").is_file()


@pytest.mark.parametrize("name", ["../w.pth", "/w.pth", "w.txt", "a/" * 11 + "w.pth"])
def test_a_name_outside_of_the_run_too_deep_or_of_another_kind_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected a path inside the run directory"):
        WeightsFile(name)
