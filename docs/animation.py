"""Make the animation of the README: a digit is drawn and read; then a network is trained.

    python docs/animation.py --data_dir DATA

It shows the real page and the real output of the commands, with pauses shortened.
"""

import argparse
import io
import itertools
import os
import pty
import re
import select
import subprocess
import tempfile
import time
from html import escape
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from screenshots import ARGUMENTS, IMAGES, PROGRAM, THREE, browser_path, open_page, serve

WIDTH, HEIGHT = 720, 504  # pixels
WINDOW = (1000, 700)
TERMINAL = """<body style="margin:0;background:#171816;color:#ecece6;font:20px/1.45 monospace">
<pre style="margin:24px;font:inherit">{}</pre></body>"""
LINES = 22  # of the terminal
BAR_SECONDS = 0.5  # between two frames of the training

Frames = list[tuple[Image.Image, int]]  # each with its duration in milliseconds


def capture(page: Page) -> Image.Image:
    """Return the window in the size of the animation."""
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    return shot.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def show_terminal(page: Page, text: str, milliseconds: int) -> tuple[Image.Image, int]:
    """Return a frame with the last lines of a terminal."""
    page.set_content(TERMINAL.format(escape("\n".join(text.splitlines()[-LINES:]))))
    return capture(page), milliseconds


def type_command(page: Page, words: str) -> Frames:
    """Show how a command is typed."""
    stops = range(0, len(words) + 1, 6)
    frames = [show_terminal(page, f"$ {words[:stop]}▌", 60) for stop in stops]
    return [*frames, show_terminal(page, f"$ {words}", 500)]


def draw(browser: Browser) -> Frames:
    """Draw a three on the page of `demo`."""
    frames: Frames = []
    with serve([*PROGRAM, "demo", "--no-browser"]) as address:
        page = open_page(browser, address, WINDOW[1])
        expect(page.locator("#run option").first).to_be_attached()
        frames.append((capture(page), 700))
        box = page.locator("#paper").bounding_box()
        assert box is not None
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in THREE]
        page.mouse.move(*points[0])
        page.mouse.down()
        for (left, top), (x, y) in itertools.pairwise(points):
            for part in (0.5, 1):
                page.mouse.move(left + part * (x - left), top + part * (y - top), steps=4)
                page.wait_for_timeout(150)  # the page reads while one draws
                frames.append((capture(page), 110))
        page.mouse.up()
        page.wait_for_timeout(500)
        frames.append((capture(page), 1800))
        page.close()
    return frames


def read_terminal(output: str) -> str:
    """Return what a terminal shows after this output: `rich` rewrites or removes the last line."""
    lines: list[str] = []
    for line in output.replace("\r\n", "\n").split("\n"):
        if "\x1b[1A" in line:  # up
            del lines[-1:]
        visible = re.split(r"\x1b\[2K|\r", line)[-1]
        lines.append(re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", visible))
    return "\n".join(lines)


def train(page: Page, data_dir: Path) -> Frames:
    """Train for three epochs, and show the terminal a few times per epoch."""
    words = ["fit", "--trainer.max_epochs", "3"]
    typed = "python -m mnist_lightning " + " ".join(words)
    frames = type_command(page, typed)
    shown, output, last = f"$ {typed}\n", "", 0.0
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [*PROGRAM, *words, "--data.data_dir", str(data_dir.resolve())],
            cwd=folder,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "30"},
        )
        os.close(theirs)
        while select.select([ours], [], [], 60)[0]:
            try:
                output += os.read(ours, 65536).decode(errors="replace")
            except OSError:  # the process has ended
                break
            text = shown + read_terminal(output)
            if "images/s" in text.splitlines()[-1] and time.monotonic() - last > BAR_SECONDS:
                last = time.monotonic()
                frames.append(show_terminal(page, text, 250))
        os.close(ours)
        assert process.wait() == 0
    return [*frames, show_terminal(page, shown + read_terminal(output), 4000)]


def main() -> None:
    """Write `docs/images/first_minute.webp`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    data_dir = parser.parse_args().data_dir
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=ARGUMENTS)
        terminal = browser.new_page(viewport={"width": WINDOW[0], "height": WINDOW[1]})
        frames = type_command(terminal, "python -m mnist_lightning demo")
        frames += draw(browser)
        frames += train(terminal, data_dir)
        browser.close()
    images, durations = zip(*frames, strict=True)
    path = IMAGES / "first_minute.webp"
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=list(durations),
        quality=55,
        method=6,
    )


if __name__ == "__main__":
    main()
