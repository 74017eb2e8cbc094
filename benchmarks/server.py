"""Measure `serve`: requests a second, the answers' delay under misuse, and that of the page.

    python benchmarks/server.py [RUN] [--before DIR] [--without_page]

Clients and server share this machine. The picture is what the page sends: a drawing, as PNG. The
misuse: 100 connections that send nothing, and two clients that send a progressive JPEG of 2,000
scans again and again, or an image of 120 megapixels. `--before` is a checkout of another version
of this project: both are measured alternately.
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

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE))
from tests.image_bombs import scan_bomb, slow_webp  # noqa: E402 - of this checkout

CLIENTS, SECONDS, TURNS = 8, 5.0, 3
IDLE, ATTACKERS, REQUESTS = 100, 2, 30


def drawing() -> bytes:
    """A seven, as the page sends it."""
    sheet = Image.new("RGBA", (280, 280), "white")
    pen = ImageDraw.Draw(sheet)
    pen.line([(87, 73), (193, 73), (133, 213)], "black", 17, "curve")
    content = io.BytesIO()
    sheet.save(content, "png")
    return content.getvalue()


def ask(address: str, content: bytes, end: float, seconds: list[float]) -> None:
    """Ask again and again over one connection; note how long each answer takes."""
    parts = urlsplit(address)
    connection = HTTPConnection(parts.hostname or "", parts.port)
    while time.perf_counter() < end:
        began = time.perf_counter()
        connection.request("POST", "/api/predict", content)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        seconds.append(time.perf_counter() - began)
    connection.close()


def load(address: str, content: bytes) -> float:
    """Return the requests answered in a second."""
    seconds: list[float] = []
    end = time.perf_counter() + SECONDS
    clients = [
        threading.Thread(target=ask, args=(address, content, end, seconds)) for _ in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return len(seconds) / SECONDS


def attack(address: str, content: Callable[[], bytes], ended: threading.Event) -> None:
    """Send an image again and again, whatever is answered."""
    parts, sent = urlsplit(address), content()
    while not ended.is_set():
        with suppress(OSError, HTTPException):
            connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
            connection.request("POST", "/api/predict", sent)
            connection.getresponse().read()
            connection.close()


def misused(address: str, content: bytes, bomb: Callable[[], bytes]) -> list[float] | str:
    """Return the seconds of normal requests while others misuse the server, or what failed."""
    parts = urlsplit(address)
    ended = threading.Event()
    idle = [socket.create_connection((parts.hostname, parts.port)) for _ in range(IDLE)]
    attackers = [
        threading.Thread(target=attack, args=(address, bomb, ended), daemon=True)
        for _ in range(ATTACKERS)
    ]
    for attacker in attackers:
        attacker.start()
    time.sleep(1)
    seconds = []
    try:
        for _ in range(REQUESTS):
            began = time.perf_counter()
            connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
            connection.request("POST", "/api/predict", content)
            status = connection.getresponse().status
            connection.close()
            if status != 200:
                return f"status {status}"
            seconds.append(time.perf_counter() - began)
        return seconds
    except OSError as error:
        return f"{type(error).__name__} after {time.perf_counter() - began:.0f} s"
    finally:
        ended.set()
        for each in idle:
            each.close()


def first_prediction(address: str) -> None:
    """Print the seconds from asking for the page to the first reading in it."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for _ in range(TURNS):
            page = browser.new_page()
            began = time.perf_counter()
            page.goto(address)
            loaded = time.perf_counter()
            box = page.locator("#paper").bounding_box()
            assert box is not None
            page.mouse.move(box["x"] + 150, box["y"] + 80)
            page.mouse.down()
            page.mouse.move(box["x"] + 150, box["y"] + 300, steps=5)
            page.mouse.up()
            page.wait_for_selector("#verdict strong")
            ended = time.perf_counter()
            print(f"page after {loaded - began:.2f} s, first reading {ended - loaded:.2f} s later")
            page.close()
        browser.close()


@contextmanager
def serving(run: str, checkout: Path) -> Iterator[str]:
    """Serve a run with the package of a checkout; give the address."""
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
    """Serve a run, and ask it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="best")
    parser.add_argument("--before", type=Path, metavar="DIR")
    parser.add_argument("--without_page", action="store_true")
    asked = parser.parse_args()
    checkouts = {"now": HERE} | ({"before": asked.before} if asked.before else {})
    content = drawing()
    rates: dict[str, list[float]] = {name: [] for name in checkouts}
    for _ in range(TURNS):
        for name, checkout in checkouts.items():
            with serving(asked.run, checkout) as address:
                load(address, content)  # the first seconds are slower
                rates[name].append(load(address, content))
    for name, found in rates.items():
        each = ", ".join(f"{rate:.0f}" for rate in found)
        print(f"{name}: {statistics.median(found):.0f} requests/s at {CLIENTS} clients ({each})")
    bombs: dict[str, Callable[[], bytes]] = {"scan bombs": scan_bomb, "120 megapixels": slow_webp}
    for name, checkout in checkouts.items():
        for kind, bomb in bombs.items():
            with serving(asked.run, checkout) as address:
                seconds = misused(address, content, bomb)
            if isinstance(seconds, list):
                median, most = (1000 * of(seconds) for of in (statistics.median, max))
                seconds = f"median {median:.0f} ms, maximum {most:.0f} ms of {REQUESTS} requests"
            print(f"{name}: {IDLE} idle connections, {ATTACKERS} clients with {kind}: {seconds}")
    if not asked.without_page:
        with serving(asked.run, HERE) as address:
            first_prediction(address)


if __name__ == "__main__":
    main()
