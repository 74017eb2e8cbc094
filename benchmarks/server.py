"""Measure `serve`: requests per second, response times during an attack, and the web page.

    python benchmarks/server.py [RUN] [--before DIR] [--without_page]

Clients and server share this machine. The clients send a drawing as PNG, like the page. The attack:
100 connections that send nothing, and two clients that repeatedly send a progressive JPEG of 2,000
scans, or an image of 120 megapixels. `--before` is a checkout of another version of this project:
both are measured alternately.
"""

import argparse
import io
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image, ImageDraw
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from tests.image_bombs import scan_bomb, slow_webp  # noqa: E402 - of this checkout

CLIENTS, SECONDS, ROUNDS = 8, 5.0, 3
IDLE_CONNECTIONS, ATTACKERS, REQUESTS = 100, 2, 30


def draw_seven() -> bytes:
    """Return the drawing of a seven as the page sends it."""
    sheet = Image.new("RGBA", (280, 280), "white")
    pen = ImageDraw.Draw(sheet)
    pen.line([(87, 73), (193, 73), (133, 213)], "black", 17, "curve")
    content = io.BytesIO()
    sheet.save(content, "png")
    return content.getvalue()


def send_requests(address: str, content: bytes, end: float, seconds: list[float]) -> None:
    """Send requests over one connection until the time `end`; append the response times."""
    parts = urlsplit(address)
    connection = HTTPConnection(parts.hostname or "", parts.port)
    while time.perf_counter() < end:
        start = time.perf_counter()
        connection.request("POST", "/api/predict", content)
        response = connection.getresponse()
        response.read()
        assert response.status == 200
        seconds.append(time.perf_counter() - start)
    connection.close()


def requests_per_second(address: str, content: bytes) -> float:
    """Measure the requests per second of all clients together."""
    seconds: list[float] = []
    end = time.perf_counter() + SECONDS
    clients = [
        threading.Thread(target=send_requests, args=(address, content, end, seconds))
        for _ in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return len(seconds) / SECONDS


def attack(address: str, create_image: Callable[[], bytes], stop: threading.Event) -> None:
    """Send an image repeatedly, and ignore the responses and errors."""
    parts, content = urlsplit(address), create_image()
    while not stop.is_set():
        with suppress(OSError, HTTPException):
            connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
            connection.request("POST", "/api/predict", content)
            connection.getresponse().read()
            connection.close()


def response_times_under_attack(
    address: str, content: bytes, create_bomb: Callable[[], bytes]
) -> list[float] | str:
    """Return the response times of normal requests during an attack, or the failure as text."""
    parts = urlsplit(address)
    stop = threading.Event()
    idle_sockets = [
        socket.create_connection((parts.hostname, parts.port)) for _ in range(IDLE_CONNECTIONS)
    ]
    attackers = [
        threading.Thread(target=attack, args=(address, create_bomb, stop), daemon=True)
        for _ in range(ATTACKERS)
    ]
    for attacker in attackers:
        attacker.start()
    time.sleep(1)
    seconds = []
    try:
        for _ in range(REQUESTS):
            start = time.perf_counter()
            connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
            connection.request("POST", "/api/predict", content)
            status = connection.getresponse().status
            connection.close()
            if status != 200:
                return f"status {status}"
            seconds.append(time.perf_counter() - start)
        return seconds
    except OSError as error:
        return f"{type(error).__name__} after {time.perf_counter() - start:.0f} s"
    finally:
        stop.set()
        for idle_socket in idle_sockets:
            idle_socket.close()


def measure_page(address: str) -> None:
    """Print the time until the page is loaded, and until it shows the first prediction."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(ROUNDS):
            page = browser.new_page()
            start = time.perf_counter()
            page.goto(address)
            loaded = time.perf_counter()
            box = page.locator("#paper").bounding_box()
            assert box is not None
            page.mouse.move(box["x"] + 150, box["y"] + 80)
            page.mouse.down()
            page.mouse.move(box["x"] + 150, box["y"] + 300, steps=5)
            page.mouse.up()
            page.wait_for_selector("#verdict strong")
            predicted = time.perf_counter()
            load_seconds, predict_seconds = loaded - start, predicted - loaded
            print(f"page in {load_seconds:.2f} s, first prediction {predict_seconds:.2f} s later")
            page.close()
        browser.close()


@contextmanager
def serve(run: str, checkout: Path) -> Iterator[str]:
    """Serve a run with the package of a checkout; yield the address."""
    command = [sys.executable, "-m", "mnist_lightning", "serve", run, "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"http://\S+", server.stdout.readline())
            assert address is not None
            yield address[0]
        finally:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(10)
            server.kill()


def main() -> None:
    """Print the request rates, the response times under attack, and the times of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="best")
    parser.add_argument("--before", type=Path, metavar="DIR")
    parser.add_argument("--without_page", action="store_true")
    options = parser.parse_args()
    checkouts = {"now": ROOT} | ({"before": options.before} if options.before else {})
    content = draw_seven()
    rates: dict[str, list[float]] = {name: [] for name in checkouts}
    for _ in range(ROUNDS):
        for name, checkout in checkouts.items():
            with serve(options.run, checkout) as address:
                requests_per_second(address, content)  # warm-up: the first seconds are slower
                rates[name].append(requests_per_second(address, content))
    for name, values in rates.items():
        rounds = ", ".join(f"{rate:.0f}" for rate in values)
        median = statistics.median(values)
        print(f"{name}: {median:.0f} requests/s at {CLIENTS} clients ({rounds})")
    bombs: dict[str, Callable[[], bytes]] = {"scan bombs": scan_bomb, "120 megapixels": slow_webp}
    for name, checkout in checkouts.items():
        for kind, create_bomb in bombs.items():
            with serve(options.run, checkout) as address:
                seconds = response_times_under_attack(address, content, create_bomb)
            if isinstance(seconds, list):
                median, maximum = 1000 * statistics.median(seconds), 1000 * max(seconds)
                seconds = f"median {median:.0f} ms, maximum {maximum:.0f} ms of {REQUESTS} requests"
            clients = f"{IDLE_CONNECTIONS} idle connections, {ATTACKERS} clients with {kind}"
            print(f"{name}: {clients}: {seconds}")
    if not options.without_page:
        with serve(options.run, ROOT) as address:
            measure_page(address)


if __name__ == "__main__":
    main()
