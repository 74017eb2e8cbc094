"""The server stays available, and refuses requests for foreign names."""

import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from mnist_lightning.deployment import hosts
from mnist_lightning.deployment.problems import ProblemError
from mnist_lightning.deployment.responses import ModelRegistry
from mnist_lightning.errors import UserError
from mnist_lightning.inference import Recognizer
from mnist_lightning.runs.run_directory import Run
from tests.deployment.conftest import serving
from tests.image_bombs import scan_bomb, slow_webp
from tests.images import draw_seven, encode

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    yield from serving(home, "0", "--allow_host", "Digits.Example")


def connect(address: str) -> socket.socket:
    url = httpx.URL(address)
    return socket.create_connection((url.host, url.port), timeout=60)


def exchange(address: str, request: str) -> str:
    """Send a raw request; return the response."""
    with connect(address) as connection:
        connection.sendall(request.encode())
        received = b""
        while part := connection.recv(65536):
            received += part
            if b"}" in received or received.endswith(b"received."):
                break
    return received.decode()


def test_silent_connections_and_bombs_cause_no_long_delay(address: str) -> None:
    bomb, seven = scan_bomb(), encode(draw_seven(), "png")
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        for _ in range(100):
            stack.enter_context(connect(address))
        bombs = [
            pool.submit(httpx.post, f"{address}/api/predict", content=bomb, timeout=60)
            for _ in range(2)
        ]
        for _ in range(5):
            start = time.monotonic()
            assert httpx.post(f"{address}/api/predict", content=seven).status_code == 200
            assert time.monotonic() - start < 10  # a bomb took 22 s
        for sent in bombs:
            answer = sent.result()
            assert answer.status_code == 422
            assert "2,000 scans; the limit is 37" in answer.json()["error"]["message"]


def test_bodies_that_stop_arriving_free_their_memory(address: str) -> None:
    seven, size = encode(draw_seven(), "png"), 24_000_000
    head = f"POST /api/predict HTTP/1.1\r\nHost: {httpx.URL(address).netloc.decode()}\r\n"
    head += f"Content-Length: {size + 1}\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(9):  # more than the limit of all requests
            connection = stack.enter_context(connect(address))
            with suppress(OSError):
                connection.sendall(head.encode() + bytes(size))
        until = time.monotonic() + 15  # half of the limit of one request
        while time.monotonic() < until:
            status = httpx.post(f"{address}/api/predict", content=seven, timeout=60).status_code
            if status == 200:
                return
            time.sleep(0.2)
        pytest.fail(f"still {status}")


def test_a_network_that_cannot_be_loaded_is_loaded_only_once(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = home / "lightning_logs"
    models = ModelRegistry(Run(root / "version_0"), None, root)
    calls = []

    def load(*arguments: object) -> Recognizer:
        calls.append(arguments)
        raise UserError("this takes ten seconds")

    monkeypatch.setattr("mnist_lightning.deployment.responses.load", load)
    for _ in range(3):
        with pytest.raises(ProblemError, match="unusable_run") as problem:
            models.load("version_1")
        assert problem.value.status == 409
    assert len(calls) == 1


def test_too_many_connections_replace_the_silent_ones(address: str) -> None:
    with ExitStack() as stack:
        for _ in range(600):
            stack.enter_context(connect(address))
        assert httpx.get(f"{address}/api/health").status_code == 200


def test_a_header_that_does_not_end_is_cut_off(address: str) -> None:
    start = time.monotonic()
    with connect(address) as connection, suppress(ConnectionError):
        connection.sendall(b"GET / HTTP/1.1\r\n")
        while time.monotonic() - start < 25:
            connection.sendall(b"a: b\r\n")
            time.sleep(0.2)
    assert 8 < time.monotonic() - start < 20


def test_a_slow_image_does_not_delay_others_and_stops_when_its_client_leaves(address: str) -> None:
    slow, seven = slow_webp(), encode(draw_seven(), "png")
    url = httpx.URL(address)
    (server,) = (
        connection.pid
        for connection in psutil.net_connections("tcp4")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == url.port
    )
    with ExitStack() as stack:
        waiting = [stack.enter_context(connect(address)) for _ in range(2)]
        for connection in waiting:
            head = f"POST /api/predict HTTP/1.1\r\nHost: {url.host}\r\nContent-Length: {len(slow)}"
            connection.sendall(head.encode() + b"\r\n\r\n" + slow)
        time.sleep(0.3)
        assert httpx.post(f"{address}/api/predict", content=seven, timeout=60).status_code == 200
        answered, _, _ = select.select(waiting, [], [], 0)
        assert not answered  # the slow images are still being decoded
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        before = busy_seconds(server)
        time.sleep(1)
        if busy_seconds(server) - before < 0.2:
            break
    assert time.monotonic() < deadline


def busy_seconds(server: int | None) -> float:
    """Return the CPU time of the live child processes of a server."""
    total = 0.0
    for child in psutil.Process(server).children():
        times = child.cpu_times()
        total += times.user + times.system
    return total


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        ("GET /api/health HTTP/1.1", "Host: localhost", 200),
        ("GET /api/health HTTP/1.1", "Host: LOCALHOST.:8000", 200),
        ("GET /api/health HTTP/1.1", "Host: 192.168.7.7:80", 200),
        ("GET /api/health HTTP/1.1", "Host: [2001:db8::1]:80", 200),
        ("GET /api/health HTTP/1.1", "Host: digits.example:8000", 200),
        ("GET /api/health HTTP/1.0", "Host: 127.0.0.1", 200),
        ("GET /api/health HTTP/1.1", "Host: evil.example", 403),
        ("GET /api/health HTTP/1.1", "Host: evil.example:80", 403),
        ("GET /api/health HTTP/1.1", "Host: 127.0.0.1.evil.example", 403),
        ("GET /api/health HTTP/1.1", "Host: localhost@evil.example", 403),
        ("GET /api/health HTTP/1.1", "Host: 2130706433", 403),
        ("GET /api/health HTTP/1.1", "Host: [localhost]", 403),
        ("GET /api/health HTTP/1.1", "Host: localhost:x", 403),
        ("GET /api/health HTTP/1.1", "Host: ", 403),
        ("GET /api/health HTTP/1.0", "Accept: */*", 403),
        ("GET /api/health HTTP/1.1", "Accept: */*", 400),
        ("GET /api/health HTTP/1.1", "Host: localhost\r\nHost: evil.example", 400),
        ("GET http://localhost/api/health HTTP/1.1", "Host: evil.example", 403),
        ("GET http://evil.example/api/health HTTP/1.1", "Host: localhost", 404),
        (
            "GET /api/health HTTP/1.1",
            "Host: evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            403,
        ),
    ],
)
def test_only_own_names_and_addresses_are_accepted(
    address: str, request_line: str, headers: str, status: int
) -> None:
    answer = exchange(address, f"{request_line}\r\n{headers}\r\n\r\n")
    assert answer.split(" ")[1] == str(status), answer
    if status == 403:
        assert "--allow_host NAME" in answer


def test_in_a_network_foreign_names_are_refused_too(home: Path) -> None:
    own = socket.gethostname()
    for address in serving(home, "0", "--host", "0.0.0.0", "--collect", "kept_not"):
        local = address.replace("0.0.0.0", "127.0.0.1")
        seven = encode(draw_seven(), "png")
        answer = httpx.post(
            f"{local}/api/corrections?label=7", content=seven, headers={"host": "evil.example"}
        )
        assert (answer.status_code, answer.json()["error"]["type"]) == (403, "foreign_host")
        assert not list((home / "kept_not").iterdir())
        for name in (own, f"{own}.local:80", "10.0.0.7"):
            assert httpx.get(f"{local}/api/health", headers={"host": name}).status_code == 200


def test_names_are_compared_without_case_and_final_dot() -> None:
    names = hosts.own_names("Server.Lan", ["other.example."], local=True)
    for host in ("server.lan", "SERVER.LAN.:80", "other.example", "localhost"):
        assert hosts.is_own(host, names)
    foreign = (None, "", "lan", "x.server.lan", "server.lan/", "server.lan:", "a b")
    assert not any(hosts.is_own(host, names) for host in foreign)


def test_a_body_in_chunks_of_one_byte_does_not_delay_others(address: str) -> None:
    def send() -> None:
        head = "POST /api/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        # A slow machine closes the connection; a fast one can parse the chunks in the allowed time.
        with connect(address) as connection, suppress(ConnectionError):
            connection.sendall(head.encode())
            connection.sendall(b"1\r\nA\r\n" * 5_000_000)

    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(send)
        while not sent.done():
            assert httpx.get(f"{address}/api/health", timeout=10).status_code == 200
        sent.result()


def test_a_body_in_small_parts_is_received(address: str) -> None:
    with connect(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = "POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(20_000):
            connection.sendall(bytes(100))
        assert connection.recv(1_000).startswith(b"HTTP/1.1 422")
