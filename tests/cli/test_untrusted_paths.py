"""A run from elsewhere writes no file outside its directory."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mnist_lightning.runs.run_directory import Run
from tests.cli.checks import load_checkpoint
from tests.cli.conftest import FIT_MLP
from tests.conftest import Command
from tests.unsigned_files import unsigned_checkpoint

pytestmark = pytest.mark.slow


def test_an_untrusted_run_cannot_set_paths_devices_or_workers(
    command: Command, trained: Run, tmp_path: Path
) -> None:
    config = trained.read_config()
    config["trainer"]["default_root_dir"] = str(tmp_path / "outside")
    config["trainer"]["devices"] = 7
    config["trainer"]["strategy"] = "ddp"
    config["trainer"]["profiler"] = "simple"
    config["trainer"]["logger"] = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": str(tmp_path / "outside")},
    }
    config["data"]["num_workers"] = 3
    config["data"]["data_dir"] = str(tmp_path / "outside")
    trained.config.write_text(yaml.safe_dump(config))
    checkpoint = load_checkpoint(trained.recent())
    checkpoint["config"] = config
    trained.recent().write_bytes(unsigned_checkpoint(checkpoint))
    assert command("resume", "0", "--trainer.max_epochs", "2").status == 0
    assert not (tmp_path / "outside").exists()
    new_config = trained.read_config()
    assert (new_config["trainer"]["devices"], new_config["data"]["num_workers"]) == (1, 0)


def test_a_data_set_is_not_downloaded_to_a_path_from_an_untrusted_file(
    command: Command, trained: Run, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    checkpoint: Any = load_checkpoint(trained.best)
    checkpoint["config"]["data"] |= {"dataset": "mnist", "data_dir": str(outside)}
    trained.best.write_bytes(unsigned_checkpoint(checkpoint))
    result = command("test", "0")
    assert result.status == 1
    assert "no train-images-idx3-ubyte in" in result.err
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["../../../out.pth", "/out.pth", "config.yaml", "x/../../y.pth"])
def test_the_weights_file_stays_in_the_run_directory(
    command: Command, trained: Run, name: str
) -> None:
    config = trained.read_config()
    path = "mnist_lightning.training.callbacks.state_dict_export.WeightsFile"
    config["trainer"]["callbacks"] = [{"class_path": path, "init_args": {"name": name}}]
    trained.config.write_text(yaml.safe_dump(config))
    checkpoint: Any = load_checkpoint(trained.recent())
    checkpoint["config"] = config
    trained.recent().write_bytes(unsigned_checkpoint(checkpoint))
    result = command("resume", "0", "--trainer.max_epochs", "2")
    assert result.status != 0
    assert "expected a path inside the run directory, with the suffix .pth or .pt" in result.err


@pytest.mark.parametrize("link", ["checkpoints", "report", "export", "00000", "export/pth"])
def test_no_command_writes_through_a_link_in_a_run(
    command: Command, trained: Run, tmp_path: Path, link: str
) -> None:
    outside = tmp_path / "outside"
    if link == "checkpoints":
        trained.checkpoints.rename(outside)
    outside.mkdir(exist_ok=True)
    (outside / ".important.tmp").touch()
    (outside / "wedding.png").touch()
    place = trained.folder / link
    place.parent.mkdir(exist_ok=True)
    if place.is_dir():
        place.rename(tmp_path / "moved")
    place.symlink_to(outside)
    before = {path.name for path in outside.iterdir()}
    for arguments in (
        ["resume", "0", "--trainer.max_epochs", "2"],
        ["report", "0"],
        ["export", "0", "--format", "pth"],
    ):
        result = command(*arguments)
        assert result.status == 1
        assert "is a symbolic link, which may lead out of" in result.err
    assert {path.name for path in outside.iterdir()} == before


def test_the_state_of_a_callback_moves_no_file_out_of_the_run(
    command: Command, tmp_path: Path, run_0: Run
) -> None:
    callback = ["--trainer.callbacks", "ModelCheckpoint", "--trainer.callbacks.monitor", "val/loss"]
    assert command(*FIT_MLP, *callback).status == 0
    precious = tmp_path / "precious.ckpt"
    precious.write_bytes(run_0.best.read_bytes())
    checkpoint: Any = load_checkpoint(run_0.recent())
    (key,) = [key for key in checkpoint["callbacks"] if key.startswith("ModelCheckpoint")]
    forged = {
        "best_k_models": {str(precious): torch.tensor(9.0)},
        "kth_best_model_path": str(precious),
        "best_model_path": str(precious),
        "dirpath": str(tmp_path / "outside"),
    }
    checkpoint["callbacks"][key] |= forged | {"kth_value": torch.tensor(9.0)}
    checkpoint["trainer"]["model_checkpoints"] = {key: forged}
    run_0.recent().write_bytes(unsigned_checkpoint(checkpoint))
    command("resume", "0", "--trainer.max_epochs", "3")
    assert precious.exists()
    assert not (tmp_path / "outside").exists()
