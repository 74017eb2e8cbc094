"""Contestants that take turns, so that a machine that is sometimes slow is slow for all of them.

Each is a process of its own: the script that asks is started once more, with `--contestant NAME`.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


class Turns:
    """A contestant's side: hands over what came out of a turn, and waits for the next."""

    def __init__(self) -> None:
        # Standard output belongs to the turns; what the contestant prints goes to a file.
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
        sys.stdout = Path("printed").open("w")  # noqa: SIM115 # open as long as the process
        os.environ["FORCE_COLOR"] = "1"  # draw bars, as on a terminal

    def hand_over(self, result: Any = None) -> None:
        """Tell the result of the turn before, and wait for the next turn."""
        print(json.dumps(result), file=self._out)
        sys.stdin.readline()


def compete(names: list[str], turns: int, arguments: list[str]) -> dict[str, list[Any]]:
    """Start the contestants, give each its turns, one after another; return their results."""
    results: dict[str, list[Any]] = {name: [] for name in names}
    again = [sys.executable, str(Path(sys.argv[0]).resolve()), *arguments]
    with tempfile.TemporaryDirectory() as folder:
        processes = {}
        for name in names:
            processes[name] = subprocess.Popen(
                [*again, "--contestant", name], cwd=_made(Path(folder, name)),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            _result(processes[name])  # it is ready
        for _ in range(turns):
            for name, process in processes.items():
                _go(process)
                results[name].append(_result(process))
        for process in processes.values():
            process.communicate("go\n")
    return results


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    print("go", file=process.stdin, flush=True)


def _result(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "a contestant has failed"
    return json.loads(line)


def table(seconds: dict[str, list[float]], against: str) -> None:
    """Print each contestant's median, and the median of its turns' ratios to those of one.

    Turns that follow one another find the machine alike.
    """
    width = max(map(len, seconds)) + 2
    print(f"{'':{width}}{'median':>10}{'fastest':>10}{'ratio':>9}")
    for name, taken in seconds.items():
        median = statistics.median(taken)
        ratio = statistics.median(
            mine / theirs for mine, theirs in zip(taken, seconds[against], strict=True)
        )
        print(f"{name:{width}}{median:>8.3f} s{min(taken):>8.3f} s{ratio:>9.3f}")


def write(figures: dict[str, Any], path: Path | None) -> None:
    """Write the figures as JSON, if asked to."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n")
