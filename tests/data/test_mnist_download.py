"""The files of MNIST are always verified. Small files replace the four real ones."""

import gzip
import hashlib
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mnist_lightning.data import mnist_download

COUNTS = {"train": 30, "t10k": 10}


def create_contents() -> dict[str, bytes]:
    """Return four files in the format of MNIST, with 30 + 10 images."""
    generator = np.random.default_rng(0)
    contents = {}
    for name in mnist_download.FILES:
        count = COUNTS[name.split("-")[0]]
        shape = (count, 28, 28) if "images" in name else (count,)
        array = generator.integers(0, 256 if "images" in name else 10, shape).astype(np.uint8)
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
        contents[name] = header + array.tobytes()
    return contents


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Replace the expected files of MNIST by the small ones."""
    contents = create_contents()
    known = {n: (len(c), hashlib.sha256(c).hexdigest()) for n, c in contents.items()}
    monkeypatch.setattr(mnist_download, "FILES", known)
    return contents


def write_files(folder: Path, files: dict[str, bytes], suffix: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = gzip.compress(content) if suffix == ".gz" else content
        (folder / f"{name}{suffix}").write_bytes(data)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("layout", ["MNIST/raw", "."])
def test_raw_and_gz_are_read_in_torchvision_s_layout_or_loose(
    tmp_path: Path, files: dict[str, bytes], suffix: str, layout: str
) -> None:
    write_files(tmp_path / layout, files, suffix)
    before = sorted(tmp_path.rglob("*"))
    images, labels, test_images, test_labels = mnist_download.load(tmp_path)
    assert images.shape == (30, 28, 28)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert test_images.numpy().tobytes() == files["t10k-images-idx3-ubyte"][16:]
    assert test_labels.tolist() == list(files["t10k-labels-idx1-ubyte"][8:])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_file_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no train-images-idx3-ubyte in"):
        mnist_download.load(tmp_path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "longer"])
def test_a_damaged_file_is_reported_with_a_fix(
    tmp_path: Path, files: dict[str, bytes], suffix: str, damage: str
) -> None:
    write_files(tmp_path / "MNIST/raw", files, suffix)
    path = tmp_path / "MNIST/raw" / f"t10k-images-idx3-ubyte{suffix}"
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    damaged = {"truncated": data[:500], "flipped": data, "empty": b"", "longer": data + b"more"}
    path.write_bytes(bytes(damaged[damage]))
    with pytest.raises(mnist_download.DamagedError) as raised:
        mnist_download.load(tmp_path)
    assert str(path) in str(raised.value)
    assert "replace it: python -m mnist_lightning data mnist --fetch" in str(raised.value)
    assert str(tmp_path) in str(raised.value)


def test_an_intact_gz_file_replaces_a_damaged_raw_file(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    write_files(tmp_path / "MNIST/raw", files, ".gz")
    (tmp_path / "MNIST/raw/train-labels-idx1-ubyte").write_bytes(b"half")
    assert len(mnist_download.load(tmp_path)[1]) == 30


def test_fetch_stores_exactly_the_four_files(
    tmp_path: Path, files: dict[str, bytes], server: str
) -> None:
    write_files(tmp_path / "served", files, ".gz")
    mnist_download.fetch(tmp_path / "data", mirrors=[server])
    raw = tmp_path / "data/MNIST/raw"
    assert {path.name for path in raw.iterdir()} == {*files, ".lock"}
    assert all((raw / name).read_bytes() == content for name, content in files.items())


def test_fetch_tries_the_next_mirror(tmp_path: Path, files: dict[str, bytes], server: str) -> None:
    write_files(tmp_path / "served/good", files, ".gz")
    write_files(tmp_path / "served/wrong", dict.fromkeys(files, b"other"), ".gz")
    write_files(tmp_path / "served/page", {f"{name}.gz": b"<html>" for name in files})
    mirrors = ["http://127.0.0.1:9/", f"{server}none/"]
    mirrors += [f"{server}{name}/" for name in ("wrong", "page", "good")]
    mnist_download.fetch(tmp_path / "data", mirrors)
    assert len(mnist_download.load(tmp_path / "data")[0]) == 30


def test_fetch_replaces_a_damaged_file(
    tmp_path: Path, files: dict[str, bytes], server: str
) -> None:
    write_files(tmp_path / "served", files, ".gz")
    write_files(tmp_path / "data/MNIST/raw", {**files, "train-images-idx3-ubyte": b"half"})
    mnist_download.fetch(tmp_path / "data", mirrors=[server])
    assert len(mnist_download.load(tmp_path / "data")[0]) == 30


def test_the_error_of_fetch_lists_the_mirrors(
    tmp_path: Path, files: dict[str, bytes], server: str
) -> None:
    write_files(tmp_path / "served/wrong", dict.fromkeys(files, b"other"), ".gz")
    with pytest.raises(
        mnist_download.FetchError, match=r"9/ \(no connection\).*none/ \(HTTP 404\)"
    ):
        mnist_download.fetch(tmp_path / "data", ["http://127.0.0.1:9/", f"{server}none/"])
    with pytest.raises(mnist_download.FetchError, match="5 bytes, expected"):
        mnist_download.fetch(tmp_path / "data", [f"{server}wrong/"])
    assert [path.name for path in (tmp_path / "data/MNIST/raw").iterdir()] == [".lock"]


def test_fetch_ends_soon_if_a_host_does_not_respond(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket
    import time

    monkeypatch.setattr(mnist_download, "RESPONSE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(mnist_download.FetchError, match="no response in"):
            mnist_download.fetch(tmp_path, [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        assert time.monotonic() - started < 10


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(mnist_download.FetchError, match=r"cannot write to .*data/MNIST/raw"):
        mnist_download.fetch(tmp_path / "data", mirrors=[])


def _fetch(folder: Path, mirror: str, start: object) -> None:
    contents = create_contents()
    mnist_download.FILES = {n: (len(c), hashlib.sha256(c).hexdigest()) for n, c in contents.items()}
    start.wait()  # type: ignore[attr-defined] # a barrier of multiprocessing
    mnist_download.fetch(folder, [mirror])
    assert len(mnist_download.load(folder)[0]) == 30


@pytest.mark.slow
def test_two_processes_can_fetch_at_the_same_time(tmp_path: Path, server: str) -> None:
    write_files(tmp_path / "served", create_contents(), ".gz")
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    arguments = (tmp_path / "data", server, start)
    processes = [context.Process(target=_fetch, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


@pytest.mark.mnist
def test_the_real_files_are_intact(mnist_dir: Path, tmp_path: Path) -> None:
    images, labels, test_images, test_labels = mnist_download.load(mnist_dir)
    assert images.shape == (60_000, 28, 28)
    assert test_images.shape == (10_000, 28, 28)
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert test_labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_a_million_empty_gzip_streams_are_rejected_quickly(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    path = raw / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(b"") * 900_000)
    began = time.process_time()
    with pytest.raises(mnist_download.DamagedError):
        mnist_download.verified_content(path, "t10k-labels-idx1-ubyte")
    assert time.process_time() - began < 2
