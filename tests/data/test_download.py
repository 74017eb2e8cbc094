"""Downloads from any server end, and need bounded memory."""

import gzip
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mnist_lightning.data import download as module
from mnist_lightning.data import mnist_download
from mnist_lightning.data.download import DownloadError, Limits, download

HEADER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@contextmanager
def serve_with(respond: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve with `respond`, which gets the connection after each request; yield the address."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    def handle(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            head = connection.recv(65536).startswith(b"HEAD")
            connection.sendall(HEADER % 0) if head else respond(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)


def send_slowly(connection: socket.socket, content: bytes = b"x" * 1000) -> None:
    for byte in content:
        connection.sendall(bytes([byte]))
        time.sleep(0.1)


def send_body_slowly(connection: socket.socket) -> None:
    connection.sendall(HEADER % 1000)
    send_slowly(connection)


def send_header_slowly(connection: socket.socket) -> None:
    send_slowly(connection, HEADER % 1000 + b"x" * 1000)


@pytest.mark.parametrize("respond", [send_body_slowly, send_header_slowly])
def test_a_download_from_a_slow_server_is_aborted(
    tmp_path: Path, respond: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPEED_SECONDS", 1.0)
    began = time.monotonic()
    with serve_with(respond) as address, pytest.raises(DownloadError, match="slower than 10 kB/s"):
        download(f"{address}file", tmp_path / "file", Limits(10_000, 60))
    assert time.monotonic() - began < 30  # the whole response takes 100 s


def test_a_download_is_limited_in_time_and_size(tmp_path: Path) -> None:
    def send_endlessly(connection: socket.socket) -> None:
        connection.sendall(HEADER % 10**12)
        while True:
            connection.sendall(bytes(10_000))
            time.sleep(0.01)

    with serve_with(send_endlessly) as address:
        with pytest.raises(DownloadError, match="not complete after 1 s"):
            download(f"{address}file", tmp_path / "file", Limits(10**12, 1))
        with pytest.raises(DownloadError, match="more than 300,000 bytes"):
            download(f"{address}file", tmp_path / "other", Limits(300_000, 60))
    assert (tmp_path / "other").stat().st_size <= 300_000


def test_an_incomplete_download_is_reported(tmp_path: Path) -> None:
    def send_half(connection: socket.socket) -> None:
        connection.sendall(HEADER % 1000 + b"half")

    with (
        serve_with(send_half) as address,
        pytest.raises(DownloadError, match=r"missing|no connection"),
    ):
        download(f"{address}file", tmp_path / "file", Limits(10_000, 60))


def test_a_compressed_response_is_not_decompressed(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(1_000_000))

    def compress(connection: socket.socket) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % len(bomb) + bomb)

    with serve_with(compress) as address:
        download(f"{address}file", tmp_path / "file", Limits(10_000, 60))
    assert (tmp_path / "file").read_bytes() == bomb


@pytest.mark.slow
def test_a_slow_mirror_is_replaced_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPEED_SECONDS", 1.0)
    with serve_with(send_body_slowly) as slow, pytest.raises(mnist_download.FetchError) as raised:
        mnist_download.fetch(tmp_path, [slow, slow.replace("127.0.0.1", "localhost")])
    assert str(raised.value).count("slower than 10 kB/s for 1 s") == 2


@pytest.mark.slow
def test_a_gzip_bomb_in_a_data_folder_needs_little_memory(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    with gzip.open(raw / "train-images-idx3-ubyte.gz", "wb", compresslevel=1) as file:
        for _ in range(300):
            file.write(bytes(10_000_000))  # 3 GB; the file has 13 MB
    script = (
        "import resource; from pathlib import Path\n"
        "from mnist_lightning.data import mnist_download\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"try: mnist_download.read(Path({str(tmp_path)!r}), 'train-images-idx3-ubyte')\n"
        "except mnist_download.DamagedError as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (4_000_000_000, 4_000_000_000))

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, preexec_fn=limit
    )
    error, megabytes = done.stdout.splitlines()
    assert "is damaged: more, expected 47,040,016" in error
    assert int(megabytes) < 200
