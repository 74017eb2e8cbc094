"""Count how often the page reads the drawing and paints all layers while a digit is drawn.

    python benchmarks/page_frames.py [--run pretrained] [--seconds 5] [--rounds 3]

Headless Chromium draws a spiral on the page of `serve` and on the exported page, with all layers
visible, flat and in 3D. A frame is counted when the browser shows a new answer with its layers.
"""

import argparse
import math
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

PROGRAM = [sys.executable, "-m", "mnist_lightning"]
# Count the frames with a new answer, and keep the milliseconds of each answer.
COUNT = """() => {
  [window.frames_shown, window.frames] = [[], 0];
  let milliseconds = null;
  verdict.follow((digit) => { if (digit) ({ milliseconds } = verdict.answer); });
  const step = () => {
    window.frames += 1;
    if (milliseconds !== null) window.frames_shown.push(milliseconds);
    milliseconds = null;
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}"""


@contextmanager
def server(run: str) -> Iterator[str]:
    """Serve a run; yield the address."""
    command = [*PROGRAM, "serve", run, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        match = re.search(r"http://\S+:\d+", process.stdout.readline())
        assert match is not None
        try:
            yield match[0]
        finally:
            process.send_signal(signal.SIGINT)


def draw(page: Page, seconds: float) -> tuple[float, float, float]:
    """Draw; return the frames per second, those of strokes, and the median ms of a reading."""
    page.evaluate("clear(); window.frames_shown.length = 0; window.frames = 0")
    box = page.locator("#paper").bounding_box()
    assert box is not None
    start = time.perf_counter()
    turn = 0.0
    while time.perf_counter() - start < seconds:
        radius = (0.05 + 0.35 * abs(math.sin(turn / 40))) * box["width"]
        x = box["x"] + box["width"] / 2 + radius * math.cos(turn)
        page.mouse.move(x, box["y"] + box["height"] / 2 + radius * math.sin(turn))
        if turn == 0:
            page.mouse.down()
        turn += 0.05
        if turn % 15 < 0.05:  # a new drawing: a page full of ink is not a digit
            page.mouse.up()
            page.evaluate("clear()")
            page.mouse.down()
    page.mouse.up()
    shown, frames = page.evaluate("[window.frames_shown, window.frames]")
    elapsed = time.perf_counter() - start
    return len(shown) / elapsed, frames / elapsed, statistics.median(shown)


def measure(page: Page, name: str, seconds: float, rounds: int) -> None:
    """Print the results for the flat view and for the view in 3D."""
    expect(page.locator("#layers canvas").first).to_be_visible(timeout=60_000)
    page.evaluate(COUNT)
    for view in ("flat", "solid"):
        page.click(f"#view-{view}")
        results = [draw(page, seconds) for _ in range(rounds)]
        shown, frames, milliseconds = map(statistics.median, zip(*results, strict=True))
        print(
            f"{name:10}{view:8}{shown:6.1f} readings/s in {frames:4.1f} frames/s, "
            f"{milliseconds:5.1f} ms per reading",
            flush=True,
        )


def main() -> None:
    """Measure both pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", default="pretrained")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as workspace, sync_playwright() as playwright:
        file = Path(workspace, "page.html")
        export = ["export", options.run, "--format", "html", "--output", str(file)]
        subprocess.run([*PROGRAM, *export], check=True, stdout=subprocess.DEVNULL)
        print(f"exported page: {file.stat().st_size / 1000:.0f} kB")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        # All layers are within the window.
        page = browser.new_page(viewport={"width": 1280, "height": 1800})
        page.goto(file.resolve().as_uri())
        measure(page, "exported", options.seconds, options.rounds)
        page.close()
        with server(options.run) as address:
            page = browser.new_page(viewport={"width": 1280, "height": 1800})
            page.goto(address)
            measure(page, "served", options.seconds, options.rounds)
        browser.close()


if __name__ == "__main__":
    main()
