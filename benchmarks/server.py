"""How many pictures a second `serve` reads for 8 clients, and how soon the page shows a reading.

    python benchmarks/server.py [RUN]

Clients and server share this machine. The picture is what the page sends: a drawing, as PNG.
"""

import argparse
import io
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

from PIL import Image, ImageDraw
from playwright.sync_api import sync_playwright

CLIENTS, SECONDS, TURNS = 8, 5.0, 3


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


def load(address: str, content: bytes) -> None:
    """Print the requests answered in a second, and the median answer's milliseconds."""
    for _ in range(TURNS):
        seconds: list[float] = []
        end = time.perf_counter() + SECONDS
        clients = [
            threading.Thread(target=ask, args=(address, content, end, seconds))
            for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        rate, median = len(seconds) / SECONDS, 1000 * statistics.median(seconds)
        print(
            f"{rate:.0f} requests/s at {CLIENTS} clients, the median answer after {median:.0f} ms"
        )


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


def main() -> None:
    """Serve a run, and ask it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="best")
    asked = parser.parse_args()
    command = [sys.executable, "-m", "mnist_lightning", "serve", asked.run, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"http://\S+", server.stdout.readline())
            assert address is not None
            first_prediction(address[0])
            load(address[0], drawing())
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
