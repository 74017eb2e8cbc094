"""Measure the time per image of torch eager, an exported program, and onnxruntime.

    python benchmarks/latency.py [RUN]

The variants predict one image at a time, on one thread, and alternate.
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

ROUNDS, IMAGES_PER_ROUND = 11, 300


def main() -> None:
    """Print the median time of each variant, and its ratio to torch eager."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="best", metavar="RUN")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run, _ = lookup.find(options.run, Path(LOGS_FOLDER))
    recognizer = load(run.folder)
    image = np.random.default_rng(0).integers(0, 256, (1, 28, 28)).astype(np.uint8)
    export = Export(recognizer, False, {}, image)

    with tempfile.TemporaryDirectory() as folder:
        variants: dict[str, Predict] = {
            "torch eager": predictor(FromPixels(recognizer.network).eval())
        }
        for name in ("pt2", "onnx"):
            path = Path(folder) / f"model.{name}"
            FORMATS[name].write(export, path)
            variants[name] = FORMATS[name].load(export, path)
        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(Path(folder) / "model.onnx", session_options)
        variants["onnx"] = lambda pixels: session.run(None, {"pixels": pixels})[0]
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(ROUNDS):
            for name, predict in variants.items():
                start = time.perf_counter()
                for _ in range(IMAGES_PER_ROUND):
                    predict(image)
                seconds[name].append((time.perf_counter() - start) / IMAGES_PER_ROUND)
    baseline = statistics.median(seconds["torch eager"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name}: {1e6 * median:.0f} µs per image, ratio {median / baseline:.2f}")


if __name__ == "__main__":
    main()
