"""Hostile files of a data set are rejected."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.errors import UserError
from mnist_lightning.runs.run_directory import Run
from tests.conftest import Command
from tests.e2e.conftest import FIT, SHORT


def idx(shape: tuple[int, ...], kind: int = 8, value: int = 0) -> bytes:
    sizes = b"".join(struct.pack(">i", size) for size in shape)
    return bytes([0, 0, kind, len(shape)]) + sizes + bytes([value]) * int(np.prod(shape))


@pytest.mark.parametrize(
    ("pictures", "labels"),
    [
        (idx((60, 28, 28), kind=10), idx((60,))),
        (idx((60, 28, 28), kind=9), idx((60,))),
        (idx((60, 5, 5)), idx((60,))),
        (idx((60, 28, 28)), idx((60,), value=200)),
        (idx((60, 28, 28)), idx((60, 1))),
        (b"", b""),
    ],
)
def test_invalid_files_of_a_data_set_are_damaged(
    tmp_path: Path, pictures: bytes, labels: bytes
) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for half in ("train", "t10k"):
        (raw / f"{half}-images-idx3-ubyte").write_bytes(pictures)
        (raw / f"{half}-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(UserError, match=r"the files of fashion_mnist in .* are damaged"):
        SOURCES["fashion_mnist"].load(tmp_path)


def test_pickled_data_of_an_old_torchvision_is_not_read(tmp_path: Path) -> None:
    processed = tmp_path / "FashionMNIST" / "processed"
    processed.mkdir(parents=True)
    for half in ("training", "test"):
        torch.save((torch.zeros(9, 28, 28).byte(), torch.zeros(9)), processed / f"{half}.pt")
    with pytest.raises(UserError, match="is from an old torchvision version"):
        SOURCES["fashion_mnist"].load(tmp_path)


def test_deeply_nested_folders_are_rejected(command: Command, trained: Run, tmp_path: Path) -> None:
    deep = tmp_path / "pictures" / "3"
    for _ in range(60):
        deep /= "d"
    deep.mkdir(parents=True)
    folder = ["--data.dataset", "folder", "--data.folder", "pictures"]
    for arguments in (["predict", "pictures"], ["fit", *folder, *SHORT]):
        result = command(*arguments)
        assert result.status == 2
        assert "has more than 50 levels of folders" in result.err


def test_an_archive_that_is_too_large_is_not_read(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_lightning.data.datasets._md5", lambda *_: pytest.fail("read"))
    monkeypatch.setattr("torchvision.datasets.FashionMNIST.mirrors", ["http://127.0.0.1:9/"])
    path = tmp_path / "data" / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.parent.mkdir(parents=True)
    path.touch()
    os.truncate(path, 40 * 10**9)
    assert "could not be downloaded" in command("data", "fashion_mnist", "--fetch").err


def test_long_paths_of_images_are_shortened(command: Command, tmp_path: Path) -> None:
    folder = tmp_path.joinpath("mine", "3", *["\u200b" * 80] * 10)
    folder.mkdir(parents=True)
    (folder / "damaged.png").write_bytes(b"no image")
    (tmp_path / "mine/3/good.png").write_bytes(b"no image")
    printed = command("predict", "mine")
    assert len(printed.out) < 2_000
    for path in SOURCES["digits"].load(tmp_path).train_images[:20].numpy():
        Image.fromarray(255 - path).resize((100, 100)).save(tmp_path / f"mine/3/{path.sum()}.png")
    folder_options = ["--data.dataset", "folder", "--data.folder", "mine"]
    result = command("fit", *folder_options, *FIT[3:], "--model.network.num_classes", "4")
    assert "damaged.png" in result.out, result.err
    assert len(result.out) < 5_000
