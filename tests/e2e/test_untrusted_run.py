"""Malicious checkpoints execute no code, and damaged ones are replaced."""

import os
import pickle
import random
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mnist_lightning
from mnist_lightning.errors import UserError
from mnist_lightning.networks.classic_cnn import ClassicCNN
from mnist_lightning.networks.registry import describe
from mnist_lightning.runs.checkpoint import DamagedCheckpointError, read_checkpoint
from mnist_lightning.runs.recent_checkpoints import newest_checkpoint
from mnist_lightning.runs.run_directory import Run
from tests.cli.checks import load_checkpoint
from tests.conftest import DIGITS, Command
from tests.processes import run
from tests.unsigned_files import unsigned_checkpoint


class Payload:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def malicious_files(marker: Path) -> dict[str, bytes]:
    """Return files that create `marker` when they are unpickled."""
    call = Payload(os.mkdir, str(marker))
    intact = {"state_dict": {}, "network": describe(ClassicCNN())}
    files: dict[str, bytes] = {"bare pickle": pickle.dumps(call)}
    folder = marker.parent
    for name, content in {
        "in place of the weights": {**intact, "state_dict": call},
        "among the random states": {**intact, "callbacks": {"RandomState": call}},
        "as the whole": call,
    }.items():
        torch.save(content, folder / "written")
        files[name] = (folder / "written").read_bytes()
    torch.save(nn.Sequential(nn.Linear(1, 1)), folder / "written")
    files["a whole module"] = (folder / "written").read_bytes()
    (folder / "written").unlink()
    return files


NAMES = [
    "bare pickle",
    "in place of the weights",
    "among the random states",
    "as the whole",
    "a whole module",
]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_a_malicious_file_is_executed(
    command: Command, run_0: Run, tmp_path: Path, name: str
) -> None:
    marker = tmp_path / "executed"
    content = malicious_files(marker)[name]
    path = tmp_path / "strange.ckpt"
    path.write_bytes(content)
    run_0.checkpoints.mkdir(parents=True)
    for path_in_run in (run_0.best, run_0.recent()):
        path_in_run.write_bytes(content)
    for arguments in (
        ["fit", "--ckpt_path", str(path), *DIGITS],
        ["resume", "0"],
        ["test", str(path)],
    ):
        assert command(*arguments).status == 1, arguments
    for reference in (path, "0"):
        with pytest.raises(UserError):
            mnist_lightning.load(reference)
    assert not marker.exists()


def name_network(checkpoint: Any) -> None:
    checkpoint["network"]["class_path"] = "theirs.Network"
    checkpoint["config"]["model"]["network"]["class_path"] = "theirs.Network"


def name_popen(checkpoint: Any) -> None:
    checkpoint["network"] = {"class_path": "subprocess.Popen", "init_args": {"args": ["id"]}}
    checkpoint["config"]["model"]["network"] = checkpoint["network"]


def name_callback(checkpoint: Any) -> None:
    checkpoint["config"]["trainer"]["callbacks"] = [{"class_path": "theirs.Callback"}]


def name_schedule(checkpoint: Any) -> None:
    checkpoint["config"]["model"]["lr_scheduler"] = {
        "class_path": "torch.optim.lr_scheduler.LambdaLR",
        "init_args": {"lr_lambda": "theirs.learning_rate"},
    }


def name_bare_network(checkpoint: Any) -> None:
    checkpoint["config"]["model"]["network"] = "theirs.Network"


def name_bare_callback(checkpoint: Any) -> None:
    checkpoint["config"]["trainer"]["callbacks"] = ["theirs.Callback"]


def name_bare_optimizer(checkpoint: Any) -> None:
    checkpoint["config"]["model"]["optimizer"] = "theirs.Optimizer"


def name_averaged(checkpoint: Any) -> None:
    inner = checkpoint["config"]["model"]["network"]
    checkpoint["config"]["model"]["network"] = {
        "class_path": "torch.optim.swa_utils.AveragedModel",
        "init_args": {"model": inner, "avg_fn": "theirs.learning_rate"},
    }


CLASS_CHANGES = [
    name_network,
    name_popen,
    name_callback,
    name_schedule,
    name_bare_network,
    name_bare_callback,
    name_bare_optimizer,
    name_averaged,
]


def test_a_class_that_a_file_names_is_not_imported(
    command: Command, run_0: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.py").write_text(
        "import os\nos.mkdir('executed')\n"
        "from mnist_lightning.networks.classic_cnn import ClassicCNN as Network\n"
        "def learning_rate(epoch): os.mkdir('called'); return 1.0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    path = tmp_path / "strange.ckpt"

    for change in CLASS_CHANGES:
        checkpoint = load_checkpoint(run_0.recent())
        change(checkpoint)
        path.write_bytes(unsigned_checkpoint(checkpoint))
        result = command("resume", str(path), "--trainer.max_epochs", "2")
        assert result.status == 1
        assert re.search(r"the class (theirs\.|subprocess\.Popen|torch\.optim\.)", result.err)
        assert command("test", str(path)).status == 1
        if change in (name_network, name_popen):
            with pytest.raises(UserError, match="network of unknown class"):
                mnist_lightning.load(path)
    assert not (tmp_path / "executed").exists()


def test_a_hundred_corruptions_of_a_checkpoint_are_detected(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "2")
    intact = run_0.recent().read_bytes()
    rng = random.Random(0)
    tried = 0
    while tried < 100:
        damaged = bytearray(intact)
        kind = rng.choice(["flip", "cut", "zeros"])
        place = rng.randrange(len(damaged))
        if kind == "flip":
            damaged[place] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del damaged[place:]
        else:
            damaged[place : place + 64] = bytes(64)
        if damaged == intact:
            continue
        tried += 1
        run_0.recent().write_bytes(damaged)
        with pytest.raises(DamagedCheckpointError):
            read_checkpoint(run_0.recent())
        assert newest_checkpoint(run_0) == run_0.recent(1)


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped"])
def test_resume_falls_back_from_a_damaged_checkpoint(
    command: Command, run_0: Run, damage: str
) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "3")
    content = run_0.recent().read_bytes()
    flipped = content[:5000] + bytes([content[5000] ^ 16]) + content[5001:]
    run_0.recent().write_bytes({"cut": content[:-100], "empty": b"", "flipped": flipped}[damage])
    result = command("resume", "--trainer.max_epochs", "4")
    assert result.status == 0
    assert "last.ckpt is damaged" in result.out
    assert "after epoch 2" in result.out


def test_a_checkpoint_contains_its_data_and_versions(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    checkpoint: Any = load_checkpoint(run_0.best)
    assert checkpoint["config"]["data"]["dataset"] == "digits"
    assert set(checkpoint["MNISTDataModule"]) == {"dataset", "checksum", "val_size", "split_seed"}
    assert {"torch", "lightning", "mnist-lightning", "python"} <= checkpoint["versions"].keys()


def test_a_full_disk_ends_the_run_and_keeps_the_last_checkpoint(
    command: Command, run_0: Run, tmp_path: Path
) -> None:
    assert run(["fit", *DIGITS, "--trainer.max_epochs", "1"], tmp_path) == 0
    before = run_0.recent().read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - 1000, hard))
    try:
        result = command("resume", "--trainer.max_epochs", "2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.status == 1
    assert "File too large: lightning_logs/version_0/checkpoints/" in result.err
    assert (
        "Saved through epoch 1 in lightning_logs/version_0. After fixing this, run: " in result.err
    )
    assert run_0.recent().read_bytes() == before
    assert not list(tmp_path.rglob(".*.tmp"))
    assert command("resume", "--trainer.max_epochs", "2").status == 0


def test_a_nearly_full_disk_is_reported_before_training(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    result = command("fit", *DIGITS)
    assert result.status == 1
    assert "lightning_logs has 1 MB free, this run may need" in result.err
    assert not (tmp_path / "lightning_logs").exists()


def test_keep_last_sets_the_number_of_checkpoints(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "4", "--keep_last", "2")
    names = {path.name for path in run_0.checkpoints.iterdir()}
    assert names == {"best.ckpt", "last.ckpt", "last-1.ckpt"}
