"""Time the first minute: from `demo` to a drawn digit that is read, in a real browser.

    python benchmarks/first_minute.py [--rounds 5]

Each round starts `demo` and a new Chromium, draws a 3, and waits for the answer. The browser may
connect to this machine only.
"""

import argparse
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from playwright.sync_api import expect, sync_playwright

THREE = [(0.37, 0.22), (0.62, 0.22), (0.47, 0.45), (0.62, 0.5), (0.64, 0.68), (0.5, 0.78)]
THREE.append((0.35, 0.73))
DEMO = [sys.executable, "-m", "mnist_lightning", "demo", "--no-browser"]
ONLY_LOCAL = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


def draw_and_read() -> tuple[float, float]:
    """Return the seconds until the address is printed, and until the digit is read."""
    start = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(DEMO, cwd=folder, stdout=subprocess.PIPE, text=True) as server,
        sync_playwright() as playwright,
    ):
        assert server.stdout is not None
        address = next(
            match[0] for line in server.stdout if (match := re.search(r"http://\S+:\d+", line))
        )
        ready = time.perf_counter() - start
        path = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", ONLY_LOCAL]
        )
        page = browser.new_page()
        page.goto(address)
        expect(page.locator("#run option").first).to_be_attached()
        box = page.locator("#paper").bounding_box()
        assert box is not None
        for x, y in THREE:
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=5)
            page.mouse.down()
        page.mouse.up()
        expect(page.locator("#verdict strong")).to_have_text("3")
        read = time.perf_counter() - start
        browser.close()
        server.send_signal(signal.SIGINT)
    return ready, read


def main() -> None:
    """Print the median, the least and the most seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = [draw_and_read() for _ in range(parser.parse_args().rounds)]
    ready, read = zip(*rounds, strict=True)
    for name, seconds in (("demo is ready", ready), ("a digit is read", read)):
        middle = statistics.median(seconds)
        print(f"{name:16} {middle:.2f} s ({min(seconds):.2f} to {max(seconds):.2f} s)")


if __name__ == "__main__":
    main()
