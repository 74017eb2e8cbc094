"""Measure what `fit --watch` costs: the snapshots, its server, and the requests of a page.

    python benchmarks/watch.py [--data_dir DATA] [--epochs 10]

It trains the default network on MNIST with `--watch`. A process requests the progress every second,
as the page does. `benchmarks/epoch.py --only fit "fit, no snapshots" bare` compares whole epochs.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

# Measures the time of each hook of the callback within the process of `fit`.
TIMED_FIT = """
import json, sys, time
from mnist_lightning.cli.main import main
from mnist_lightning.training.callbacks.epoch_snapshots import EpochSnapshots
write, seconds = EpochSnapshots._write, []
def timed(*arguments, **named):
    start = time.perf_counter()
    write(*arguments, **named)
    seconds.append(time.perf_counter() - start)
EpochSnapshots._write = timed
status = main(sys.argv[1:])
print("SECONDS", json.dumps(seconds))
sys.exit(status)
"""


def ask(address: str, after: int, snapshots_after: int) -> dict[str, Any]:
    """Request what is new, as the page does."""
    query = f"after={after}&snapshots_after={snapshots_after}&page=benchmark"
    with urllib.request.urlopen(f"{address}/api/watch?{query}", timeout=60) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def follow(address: str, server: psutil.Process, printed_at: float) -> tuple[list[float], float]:
    """Request what is new until the end; return the seconds of the requests, and of the CPU."""
    last, snapshot, requests, has_more = 0, -1, [], True
    cpu = 0.0
    while has_more:
        start = time.perf_counter()
        answer = ask(address, max(0, last - 1), snapshot)
        requests.append(time.perf_counter() - start)
        if len(requests) == 1:
            print(f"first response {time.perf_counter() - printed_at:.2f} s after the address")
        cpu = sum(server.cpu_times()[:2])
        last, snapshot, has_more = answer["last_epoch"], answer["last_snapshot"], answer["follow"]
        time.sleep(1 if has_more else 0)
    return requests, cpu


def main() -> None:
    """Train, follow the run, and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="a folder with MNIST")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    data = ["--data.dataset", "mnist", "--data.data_dir", str(options.data_dir.resolve())]
    arguments = ["fit", "--watch", *data, "--trainer.max_epochs", str(options.epochs)]
    with tempfile.TemporaryDirectory() as folder:
        displays = ("DISPLAY", "WAYLAND_DISPLAY")  # no browser must open
        environment = {name: text for name, text in os.environ.items() if name not in displays}
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", TIMED_FIT, *arguments],
            cwd=folder, env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        address = ""
        while not address:
            line = process.stdout.readline()
            assert line, "fit has failed"
            match = re.search(r"watch the training: (\S+)/watch", line)
            address = match[1] if match else ""
        printed_at = time.perf_counter()
        (server,) = [psutil.Process(each.pid) for each in psutil.Process(process.pid).children()]
        requests, cpu = follow(address, server, printed_at)
        seconds = time.perf_counter() - printed_at
        rest = process.stdout.read()
        run = Path(folder, "lightning_logs", "version_0")
        sizes = [path.stat().st_size for path in (run / "snapshots").iterdir()]
        epoch_seconds = json.loads((run / "summary.json").read_text())["epoch_seconds"]
    snapshots = json.loads(rest.partition("SECONDS ")[2])[1:]
    median = statistics.median(snapshots)
    print(
        f"epoch {epoch_seconds:.2f} s, snapshot {1000 * median:.2f} ms (median), "
        f"{1000 * max(snapshots):.2f} ms (longest): {100 * median / epoch_seconds:.2f} %"
    )
    print(f"size of a snapshot: {max(sizes):,} bytes")
    print(f"{len(requests)} requests, {1000 * statistics.median(requests[1:]):.1f} ms (median)")
    print(f"computing time of the server: {cpu:.2f} s of {seconds:.1f} s")


if __name__ == "__main__":
    main()
