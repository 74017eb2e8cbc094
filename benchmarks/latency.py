"""How long a single picture takes: torch, as it is and as an exported program, against onnxruntime.

    python benchmarks/latency.py [RUN]

The contestants take turns; each has one thread.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from mnist_lightning import load
from mnist_lightning.deployment.exporters import FORMATS, Export, FromPixels, Predict, predictor
from mnist_lightning.runs import lookup
from mnist_lightning.runs.run_directory import LOGS_FOLDER

TURNS, PICTURES = 11, 300


def main() -> None:
    """Print a line a contestant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="best", metavar="RUN")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    run, _ = lookup.find(asked.run, Path(LOGS_FOLDER))
    recognizer = load(run.folder)
    picture = np.random.default_rng(0).integers(0, 256, (1, 28, 28)).astype(np.uint8)
    export = Export(recognizer, False, {})

    with tempfile.TemporaryDirectory() as place:
        contestants: dict[str, Predict] = {
            "torch eager": predictor(FromPixels(recognizer.network).eval())
        }
        for name in ("pt2", "onnx"):
            path = Path(place) / f"model.{name}"
            FORMATS[name].write(export, path)
            contestants[name] = FORMATS[name].load(export, path)
        alone = onnxruntime.SessionOptions()
        alone.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(Path(place) / "model.onnx", alone)
        contestants["onnx"] = lambda pixels: session.run(None, {"pixels": pixels})[0]
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(TURNS):
            for name, predict in contestants.items():
                began = time.perf_counter()
                for _ in range(PICTURES):
                    predict(picture)
                seconds[name].append((time.perf_counter() - began) / PICTURES)
    base = statistics.median(seconds["torch eager"])
    for name, all_seconds in seconds.items():
        median = statistics.median(all_seconds)
        print(f"{name}: {1e6 * median:.0f} us a picture, {median / base:.2f} of torch eager")


if __name__ == "__main__":
    main()
