"""Your own arrays in MNIST's format, memory-mapped."""

import os
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mnist_lightning import posix
from mnist_lightning.data import idx, loader
from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.data.loader import BatchDataset
from mnist_lightning.data.own_data import load_arrays
from mnist_lightning.errors import UserError
from mnist_lightning.runs.run_directory import Run
from tests.conftest import DIGITS, Command
from tests.images import write_arrays, write_idx

SHORT = ("--trainer.max_epochs", "2", "--dashboards", "none")


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """A folder with the bundled digits in MNIST's format."""
    return write_arrays(tmp_path / "arrays", SOURCES["digits"].load(Path()))


def weights(run: Run) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run.recent(), weights_only=True)["state_dict"]
    return state


def are_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_arrays_on_the_disk_give_the_same_weights_as_in_memory(
    command: Command, arrays: Path, run_0: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("fit", *DIGITS, *SHORT, "--data.val_size", "200").status == 0
    own = ("--data.dataset", "idx", "--data.folder", str(arrays), "--data.val_size", "200")
    monkeypatch.setattr(loader, "LARGE", 0)  # also those of a data set that is larger than memory
    monkeypatch.setattr(loader, "SAMPLES_PER_GATHER", 300)
    assert command("fit", *own, *SHORT).status == 0
    run_1 = Run(run_0.folder.with_name("version_1"))
    assert are_equal(weights(run_0), weights(run_1))
    assert run_1.summary()["dataset"] == "idx"
    assert run_1.summary()["test/correct"] == run_0.summary()["test/correct"]
    for following in (("resume", "1", "--trainer.max_epochs", "3"), ("test", "1"), ("report", "1")):
        result = command(*following)
        assert result.status == 0, result.err


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_reading_ahead_does_not_change_the_batches(
    monkeypatch: pytest.MonkeyPatch, seed: int | None, workers: int
) -> None:
    data = SOURCES["digits"].load(Path())
    rows = torch.randperm(len(data.train_labels))[:1000]
    labels = data.train_labels[rows]
    monkeypatch.setattr(loader, "SAMPLES_PER_GATHER", 200)
    monkeypatch.setattr(loader, "LARGE", 10**9)
    plain = BatchDataset(data.train_images, labels, 64, seed, rows=rows)
    copied = BatchDataset(data.train_images[rows], labels, 64, seed)
    monkeypatch.setattr(loader, "LARGE", 0)
    large = BatchDataset(data.train_images, labels, 64, seed, rows=rows)
    assert large._is_large
    for epoch in (0, 1):
        batches = zip(
            plain.batches(epoch),
            copied.batches(epoch),
            loader.BatchLoader(large, workers) if epoch == 0 else large.batches(epoch),
            strict=True,
        )
        for first, *others in batches:
            for other in others:
                assert torch.equal(first[0], other[0])
                assert torch.equal(first[1], other[1])


def test_reading_ahead_requests_what_is_used_next(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[int] = []
    monkeypatch.setattr(loader, "LARGE", 0)
    monkeypatch.setattr(loader, "SAMPLES_PER_GATHER", 100)

    data = SOURCES["digits"].load(Path())

    def record(ranges: NDArray[np.uint64]) -> None:
        offsets = ranges[:, 0].astype(int) - data.train_images.data_ptr()
        assert (np.diff(offsets) > 0).all()
        assert (ranges[:, 1] == 784).all()
        requested.extend((offsets // 784).tolist())

    monkeypatch.setattr(posix, "prefetch", record)
    dataset = BatchDataset(data.train_images, data.train_labels, 100, seed=0)
    batches = dataset.batches(0)
    next(batches)
    assert len(requested) in (100, 200)  # the second hundred is perhaps not requested yet
    next(batches)
    order = loader.epoch_order(len(dataset), 0, 0).tolist()
    assert requested[:100] == sorted(order[:100])
    assert requested[100:200] == sorted(order[100:200])


def test_the_files_are_mapped_and_not_copied(arrays: Path) -> None:
    data = MNISTDataModule(dataset="idx", folder=str(arrays))
    data.prepare_data()
    data.setup()
    images = data.data.train_images
    mapped = Path("/proc/self/maps").read_text()
    assert str(arrays / "train-images-idx3-ubyte") in mapped
    assert data.train_dataloader().dataset.images.data_ptr() == images.data_ptr()
    (validation,) = [data.val_dataloader()]
    assert isinstance(validation, loader.BatchLoader)
    assert validation.dataset.images.data_ptr() == images.data_ptr()


def test_a_change_of_an_image_does_not_change_the_file(arrays: Path) -> None:
    before = (arrays / "train-images-idx3-ubyte").read_bytes()
    load_arrays(arrays).train_images[0] = 7
    assert (arrays / "train-images-idx3-ubyte").read_bytes() == before


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("train-images-idx3-ubyte", None, "no file .*train-images-idx3-ubyte; --data.dataset idx"),
        ("t10k-labels-idx1-ubyte", None, "needs train-images-idx3-ubyte, train-labels-idx1"),
        ("train-images-idx3-ubyte", b"", "not an IDX file"),
        ("train-images-idx3-ubyte", b"\x89PNG\r\n\x1a\n", "ubyte: not an IDX file"),
        ("train-images-idx3-ubyte", bytes.fromhex("00000803" + "7fffffff" * 3), "16 bytes, expect"),
        (
            "t10k-images-idx3-ubyte",
            bytes.fromhex("0000080200000001") + bytes(4),
            r"contains \(1, 0\)",
        ),
        ("train-images-idx3-ubyte", bytes.fromhex("00000801 00000002") + b"12", r"contains \(2,\)"),
        ("train-labels-idx1-ubyte", bytes.fromhex("00000801 00000002") + b"12", "expected 1,500"),
        (
            "t10k-labels-idx1-ubyte",
            bytes.fromhex("00000801 00000129") + b"\xc8" * 297,
            "labels from 200 to 200, expected 0 to 199",
        ),
        ("t10k-labels-idx1-ubyte", bytes.fromhex("00000c01 00000129") + b"\xff" * 1188, "from -1"),
        ("t10k-labels-idx1-ubyte", bytes.fromhex("00000802 00000129 00000000"), "expected 297"),
    ],
)
def test_invalid_arrays_are_reported(
    arrays: Path, file: str, content: bytes | None, problem: str
) -> None:
    if content is None:
        (arrays / file).unlink()
    else:
        (arrays / file).write_bytes(content)
    with pytest.raises(UserError, match=problem):
        load_arrays(arrays)


def test_a_file_may_have_no_test_images(arrays: Path, command: Command) -> None:
    write_idx(arrays / "t10k-images-idx3-ubyte", torch.zeros(0, 28, 28))
    write_idx(arrays / "t10k-labels-idx1-ubyte", torch.zeros(0))
    own = ("--data.dataset", "idx", "--data.folder", str(arrays))
    result = command("fit", *own, *SHORT, "--trainer.max_epochs", "1")
    assert result.status == 0, result.err


def test_arrays_need_their_folder(command: Command) -> None:
    result = command("fit", "--data.dataset", "idx")
    assert result.status == 2
    assert "need both --data.dataset idx and --data.folder DIR" in result.err


def test_integers_of_32_bits_are_read(tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    path.write_bytes(bytes.fromhex("00000c01 00000002 00000100 ffffffff"))
    assert idx.parse(idx.map_file(path)).tolist() == [256, -1]


def is_in_memory(file: BinaryIO, offset: int) -> bool:
    """Return whether the system has a byte of a file in its memory."""
    try:
        return os.preadv(file.fileno(), [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    except OSError:
        pytest.skip("this file system cannot tell what is in memory")


@pytest.mark.parametrize("fast", [True, False])
def test_requested_parts_are_read_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    if not fast:
        monkeypatch.setattr(posix, "_process_madvise", lambda *_: -1)
    path = tmp_path / "large"
    path.write_bytes(bytes(80_000_000))
    os.sync()
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        parts = np.arange(0, 80_000_000, 50_000)  # 1,600 pages
        if any(is_in_memory(file, part) for part in parts.tolist()):
            pytest.skip("the system keeps the file in its memory")
        content = idx.map_file(path)
        posix.expect_random_access(content.ctypes.data, len(content))
        ranges = np.stack([content.ctypes.data + parts, np.full_like(parts, 784)], 1)
        posix.prefetch(ranges.astype(np.uint64))
        deadline = time.monotonic() + 60
        while not all(is_in_memory(file, part) for part in parts.tolist()):
            assert time.monotonic() < deadline
        between = [is_in_memory(file, part + 25_000) for part in parts.tolist()]
        assert sum(between) < len(parts) / 2
