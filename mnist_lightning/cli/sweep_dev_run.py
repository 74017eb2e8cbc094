"""`--trainer.fast_dev_run` in a sweep: try a few batches, and save nothing."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mnist_lightning.cli import console
from mnist_lightning.text import plural
from mnist_lightning.tuning.search_space import add_options


def try_points(points: Mapping[str, Mapping[str, Any]], options: Sequence[str], count: int) -> int:
    """Train some batches of each point in a process, as `fit` does; return the exit status.

    Args:
        points: the values to try, by the name to show.
        options: the options of `fit`.
        count: the number of batches.
    """
    out = console.make_console()
    worked = 0
    for name, values in points.items():
        # The last options: a config may contain others.
        last = [f"--trainer.fast_dev_run={count}", "--auto_resume=false"]
        command = ["fit", *add_options(options, values), *last]
        started = time.perf_counter()
        result = subprocess.run(
            [sys.executable, "-m", "mnist_lightning", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        if result.returncode == 0:
            worked += 1
            seconds = time.perf_counter() - started
            batches = f"{count} {'batch' if count == 1 else 'batches'}"
            console.show_line(out, f"{name}: {batches} worked, {seconds:.1f} s with the start")
        else:
            lines = result.stderr.strip().splitlines() or [f"status {result.returncode}"]
            reason = lines[-1].removeprefix("mnist-lightning: error: ")
            console.show_line(out, f"{name}: failed: {reason}")
    tried = f"fast_dev_run: {worked} of {plural(len(points), 'trial')} worked, nothing is saved"
    fix = "Omit --trainer.fast_dev_run to start the sweep."
    console.show_line(out, f"{tried}. {fix}" if worked == len(points) else tried)
    return 0 if worked == len(points) else 1
