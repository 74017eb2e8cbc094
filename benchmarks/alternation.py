"""Alternate the variants of a benchmark, so that a slow phase of the machine affects all of them.

Each variant is a process: the calling script, started again with `--variant NAME`.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


class RoundReporter:
    """Reports the result of each round from the process of a variant, and waits for the next."""

    def __init__(self) -> None:
        # Standard output transmits the results; what the variant prints goes to a file.
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
        sys.stdout = Path("printed").open("w")  # noqa: SIM115 # open as long as the process
        os.environ["FORCE_COLOR"] = "1"  # draw bars, as on a terminal

    def report(self, result: Any = None) -> None:
        """Report the result of the last round, and wait until the next round starts."""
        print(json.dumps(result), file=self._out)
        sys.stdin.readline()


def run_alternately(variants: list[str], rounds: int, arguments: list[str]) -> dict[str, list[Any]]:
    """Start the variants, and run one round of each in turn; return their results per round."""
    results: dict[str, list[Any]] = {name: [] for name in variants}
    command = [sys.executable, str(Path(sys.argv[0]).resolve()), *arguments]
    with tempfile.TemporaryDirectory() as workspace:
        processes = {}
        for name in variants:
            folder = Path(workspace, name)
            folder.mkdir()
            processes[name] = subprocess.Popen(
                [*command, "--variant", name], cwd=folder,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            _read_result(processes[name])  # wait until it is ready
        for _ in range(rounds):
            for name, process in processes.items():
                _start_round(process)
                results[name].append(_read_result(process))
        for process in processes.values():
            process.communicate("start\n")
    return results


def _start_round(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    print("start", file=process.stdin, flush=True)


def _read_result(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "a variant has failed"
    return json.loads(line)


def print_table(seconds: dict[str, list[float]], baseline: str) -> None:
    """Print the median time of each variant, and the median of its ratios to the baseline.

    A ratio compares the same round of both variants, which run one shortly after the other.
    """
    width = max(map(len, seconds)) + 2
    print(f"{'':{width}}{'median':>10}{'fastest':>10}{'ratio':>9}")
    for name, values in seconds.items():
        ratios = [value / base for value, base in zip(values, seconds[baseline], strict=True)]
        median, ratio = statistics.median(values), statistics.median(ratios)
        print(f"{name:{width}}{median:>8.3f} s{min(values):>8.3f} s{ratio:>9.3f}")


def write_json(results: dict[str, Any], path: Path | None) -> None:
    """Write results as JSON, if there is a path."""
    if path is not None:
        path.write_text(json.dumps(results, indent=2) + "\n")
