"""Show the progress of a long loop on stderr: a bar on a terminal, otherwise a line per minute."""

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mnist_lightning.text import duration, printable, say

SHOW_AFTER_SECONDS = 1.0  # shorter loops show nothing
LINE_SECONDS = 60.0
REFRESH_SECONDS = 0.2


Advance = Callable[[], None]


@contextmanager
def show_progress(description: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show how many steps of a loop are done; yield the function to call after each.

    Args:
        description: what the loop does.
        total: the number of steps; 0: show nothing.
        unit: what is counted, as a plural.
        done: the number of steps that an earlier process did.
    """
    if sys.stderr is not None and sys.stderr.isatty() and total:
        with _show_bar(printable(description), total, unit, done) as advance:
            yield advance
        return
    count, shown = done, time.monotonic()

    def step() -> None:
        nonlocal count, shown
        count += 1
        if total and time.monotonic() - shown >= LINE_SECONDS:
            shown = time.monotonic()
            say(f"{description}: {count:,} of {total:,} {unit}", file=sys.stderr)

    yield step


@contextmanager
def _show_bar(description: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    width = max(4, min(30, shutil.get_terminal_size().columns - 75))
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(width),
        TextColumn("{task.fields[status]}", markup=False),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)
    task = bar.add_task(description, total=total, completed=done, status="")
    start = shown = time.monotonic()
    count = done
    is_started = False

    def step() -> None:
        nonlocal count, shown, is_started
        count += 1
        now = time.monotonic()
        if now - start < SHOW_AFTER_SECONDS or now - shown < REFRESH_SECONDS:
            return
        if not is_started:
            bar.start()
            is_started = True
        shown = now
        speed = (count - done) / (now - start)
        remaining = duration((total - count) / speed)
        status = f"{count:,} of {total:,}  {speed:,.0f} {unit}/s  remaining {remaining}"
        bar.update(task, completed=count, status=status, refresh=True)

    try:
        yield step
    finally:
        if is_started:
            bar.stop()
