"""The data sets of torchvision, from generated files."""

import gc
import gzip
import hashlib
import io
import socket
import tarfile
import zipfile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torchvision.datasets import EMNIST, KMNIST

from mnist_lightning.data import datasets
from mnist_lightning.data.mnist_download import DamagedError, FetchError
from mnist_lightning.errors import UserError
from tests.conftest import Command
from tests.data.test_download import send_body_slowly, serve_with


def idx(array: np.ndarray, element: int = 8) -> bytes:
    shape = np.array(array.shape, ">i4").tobytes()
    return bytes([0, 0, element, array.ndim]) + shape + array.tobytes()


def write_like_mnist(folder: Path, counts: tuple[int, int], prefix: str = "") -> None:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    parts = ("train", "test") if prefix else ("train", "t10k")
    for part, count in zip(parts, counts, strict=True):
        images = generator.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{prefix}{part}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{prefix}{part}-labels-idx1-ubyte").write_bytes(idx(labels))


def source(name: str, class_name: str, sizes: tuple[int, int]) -> datasets.Source:
    return datasets._torchvision_source(name, class_name, "generated", sizes)


@pytest.mark.parametrize(
    ("name", "class_name"), [("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_mnist_like_files_are_read(tmp_path: Path, name: str, class_name: str) -> None:
    write_like_mnist(tmp_path / class_name / "raw", (30, 20))
    data = source(name, class_name, (30, 20)).load(tmp_path)
    assert data.name == name
    assert data.train_images.shape == (30, 28, 28)
    assert data.test_labels.tolist() == [n % 10 for n in range(20)]


def test_images_of_emnist_are_transposed(tmp_path: Path) -> None:
    raw = tmp_path / "EMNIST" / "raw"
    write_like_mnist(raw, (30, 20), prefix="emnist-digits-")
    data = source("emnist_digits", "EMNIST", (30, 20)).load(tmp_path)
    stored = np.frombuffer((raw / "emnist-digits-train-images-idx3-ubyte").read_bytes()[16:], "u1")
    assert torch.equal(
        data.train_images, torch.from_numpy(stored.reshape(30, 28, 28).copy()).transpose(1, 2)
    )


def test_qmnist_s_labels_are_its_first_column(tmp_path: Path) -> None:
    raw = tmp_path / "QMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 30), ("test", 20)):
        labels = np.zeros((count, 8), dtype=">i4")
        labels[:, 0] = np.arange(count) % 10
        labels[:, 1:] = 77
        images = np.zeros((count, 28, 28), dtype=np.uint8)
        (raw / f"qmnist-{part}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"qmnist-{part}-labels-idx2-int").write_bytes(idx(labels, element=12))
    data = source("qmnist", "QMNIST", (30, 20)).load(tmp_path)
    assert data.train_labels.tolist() == [n % 10 for n in range(30)]
    assert data.test_labels.dtype == torch.int64


@pytest.mark.parametrize("damage", ["half", "few", "packed"])
def test_a_partially_extracted_data_set_is_damaged(tmp_path: Path, damage: str) -> None:
    raw = tmp_path / "KMNIST" / "raw"
    write_like_mnist(raw, (30, 20))
    path = raw / "train-images-idx3-ubyte"
    if damage == "half":
        path.write_bytes(path.read_bytes()[:-100])
    if damage == "packed":
        path.write_bytes(gzip.compress(path.read_bytes()))
    expected = (60_000, 10_000) if damage == "few" else (30, 20)
    with pytest.raises(DamagedError, match=r"kmnist in .*KMNIST are damaged"):
        source("kmnist", "KMNIST", expected).load(tmp_path)


@pytest.fixture
def kmnist(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Serve a KMNIST of 50 images to torchvision; return the folder of its files."""
    folder = tmp_path / "served" / "kmnist"
    write_like_mnist(folder, (30, 20))
    resources = []
    for file in list(folder.iterdir()):
        compressed = gzip.compress(file.read_bytes())
        (folder / f"{file.name}.gz").write_bytes(compressed)
        resources.append((f"{file.name}.gz", hashlib.md5(compressed).hexdigest()))
    monkeypatch.setattr(KMNIST, "mirrors", [f"{server}kmnist/"])
    monkeypatch.setattr(KMNIST, "resources", resources)
    return folder


def test_a_data_set_is_downloaded_by_torchvision_and_read(tmp_path: Path, kmnist: Path) -> None:
    small = source("kmnist", "KMNIST", (30, 20))
    with pytest.raises(FileNotFoundError):
        small.load(tmp_path / "data")
    small.fetch(tmp_path / "data")
    assert small.load(tmp_path / "data").test_labels.tolist() == [n % 10 for n in range(20)]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # torchvision's, of a missing file
@pytest.mark.parametrize("problem", ["missing", "other", "silent"])
def test_the_error_of_a_failed_download_names_the_data_set_and_the_folder(
    tmp_path: Path, kmnist: Path, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_lightning.data.download.READ_SECONDS", 0.5)
    labels = kmnist / "t10k-labels-idx1-ubyte.gz"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        if problem == "missing":
            labels.unlink()
        if problem == "other":
            labels.write_bytes(b"a page of somebody's who has no such file")
        if problem == "silent":
            where = f"http://127.0.0.1:{silent.getsockname()[1]}/"
            monkeypatch.setattr(KMNIST, "mirrors", [where])
        with pytest.raises(FetchError, match=r"kmnist could not be downloaded into .*data: \S"):
            source("kmnist", "KMNIST", (30, 20)).fetch(tmp_path / "data")
    assert socket.getdefaulttimeout() is None
    gc.collect()


def test_a_missing_data_set_raises_an_error(tmp_path: Path) -> None:
    for entry in datasets.SOURCES.values():
        if entry.folder:
            with pytest.raises(FileNotFoundError):
                entry.load(tmp_path)


def test_checksum_changes_with_a_single_pixel_or_label() -> None:
    data = datasets.SOURCES["digits"].load(Path())
    fields = ("train_images", "train_labels", "test_images", "test_labels")
    sums = {data.checksum}
    for field in fields:
        tensors = {name: getattr(data, name).clone() for name in fields}
        tensors[field].view(-1)[0] ^= 1
        sums.add(datasets.DigitData("digits", **tensors).checksum)
    assert len(sums) == 5


def test_data_lists_every_data_set_and_its_state(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # without those of other tests
    result = command("data")
    assert result.status == 0
    assert [line.split()[:2] for line in result.out.splitlines()[::2]] == [
        [name, "missing" if source.folder else "intact"]
        for name, source in datasets.SOURCES.items()
    ]
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"half")
    damaged = command("data", "mnist")
    assert damaged.status == 1
    assert "4 bytes, expected 47,040,016" in damaged.out


def test_a_download_by_torchvision_from_a_slow_server_is_aborted(
    tmp_path: Path, kmnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_lightning.data.download.SPEED_SECONDS", 1.0)
    with serve_with(send_body_slowly) as slow:
        monkeypatch.setattr(KMNIST, "mirrors", [slow])
        with pytest.raises(FetchError, match="slower than 10 kB/s for 1 s"):
            source("kmnist", "KMNIST", (30, 20)).fetch(tmp_path / "data")
    assert not list((tmp_path / "data" / "KMNIST" / "raw").iterdir())


def test_a_huge_raw_file_is_not_read(tmp_path: Path) -> None:
    raw = tmp_path / "KMNIST" / "raw"
    write_like_mnist(raw, (30, 20))
    with (raw / "train-images-idx3-ubyte").open("r+b") as file:
        file.truncate(10**10)  # sparse
    with pytest.raises(DamagedError, match="is not a file of 23,536 bytes"):
        source("kmnist", "KMNIST", (30, 20)).load(tmp_path)


def test_a_file_of_another_size_is_not_opened(tmp_path: Path) -> None:
    raw = tmp_path / "QMNIST" / "raw"
    raw.mkdir(parents=True)
    with (raw / "qmnist-train-labels-idx2-int").open("wb") as file:
        file.truncate(30_000_000_000)
    with pytest.raises(UserError, match="labels-idx2-int is not a file of 1,920,012 bytes"):
        datasets.SOURCES["qmnist"].load(tmp_path)


def test_nothing_is_extracted_through_a_link(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match="is a symbolic link, which may lead out of"):
        datasets.SOURCES["fashion_mnist"].fetch(tmp_path)


def test_the_options_name_every_data_set() -> None:
    assert set(get_args(datasets.SourceName)) == datasets.SOURCES.keys()


def test_only_the_downloaded_archive_is_extracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another archive in the folder could write anywhere."""
    source_files = tmp_path / "packed"
    write_like_mnist(source_files, (30, 20), prefix="emnist-digits-")
    raw = tmp_path / "data" / "EMNIST" / "raw"
    (raw / "gzip").mkdir(parents=True)
    with tarfile.open(raw / "gzip" / "00.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("../../../written")
        archive.addfile(member, io.BytesIO())
    with zipfile.ZipFile(raw / "gzip.zip", "w") as downloaded:
        for path in source_files.iterdir():
            downloaded.writestr(f"gzip/{path.name}.gz", gzip.compress(path.read_bytes()))
    digest = hashlib.md5((raw / "gzip.zip").read_bytes()).hexdigest()
    monkeypatch.setattr(EMNIST, "md5", digest)
    monkeypatch.setattr(EMNIST, "url", "http://127.0.0.1:1/gzip.zip")
    emnist = source("emnist_digits", "EMNIST", (30, 20))
    emnist.fetch(tmp_path / "data")
    assert len(emnist.load(tmp_path / "data").train_labels) == 30
    assert not list(tmp_path.rglob("written"))


@pytest.mark.parametrize("header", ["00000000", "00000a03"])
def test_forged_files_beside_an_intact_archive_are_damaged(kmnist: Path, header: str) -> None:
    served = source("kmnist", "KMNIST", (30, 20))
    served.fetch(kmnist)
    path = kmnist / "KMNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(bytes.fromhex(header) + path.read_bytes()[4:])
    with pytest.raises(DamagedError, match="delete that folder"):
        served.fetch(kmnist)
