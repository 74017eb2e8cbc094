"""Checkpoint files: damaged ones are rejected, and no code in them is executed."""

import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_lightning.files import write_atomically
from mnist_lightning.runs.checkpoint import (
    DamagedCheckpointError,
    dump_checkpoint,
    read_checkpoint,
)

CHECKPOINT = {
    "state_dict": {"weight": torch.arange(3000.0)},
    "epoch": 3,
    "config": {"a": [1, None]},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a checkpoint."""
    path = tmp_path / "last.ckpt"
    write_atomically(dump_checkpoint(CHECKPOINT), path)
    return path


def test_a_written_checkpoint_is_read_back(path: Path) -> None:
    read = read_checkpoint(path)
    assert torch.equal(read["state_dict"]["weight"], torch.arange(3000.0))
    assert read["config"] == CHECKPOINT["config"]


def test_torch_load_reads_a_checkpoint_with_weights_only(path: Path) -> None:
    assert torch.load(path, weights_only=True)["epoch"] == 3


def test_a_file_of_torch_save_without_a_digest_is_read(path: Path) -> None:
    torch.save(CHECKPOINT, path)
    assert read_checkpoint(path)["epoch"] == 3


def test_every_flipped_bit_is_detected(path: Path) -> None:
    whole = path.read_bytes()
    generator = random.Random(0)
    for _ in range(100):
        content = bytearray(whole)
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
        with pytest.raises(DamagedCheckpointError, match=r"last\.ckpt"):
            read_checkpoint(path)


def test_every_truncation_is_detected(path: Path) -> None:
    whole = path.read_bytes()
    generator = random.Random(0)
    for length in [0, 1, *(generator.randrange(len(whole)) for _ in range(50))]:
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedCheckpointError, match=r"last\.ckpt"):
            read_checkpoint(path)


class Malicious:
    """Runs a command when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_executed(tmp_path: Path, zipped: bool) -> None:
    target, path = tmp_path / "executed", tmp_path / "evil.ckpt"
    evil = {"state_dict": {}, "payload": Malicious(target)}
    if zipped:
        torch.save(evil, path)
    else:
        path.write_bytes(pickle.dumps(evil))
    with pytest.raises(DamagedCheckpointError):
        read_checkpoint(path)
    assert not target.exists()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(b"new", path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
