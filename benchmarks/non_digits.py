"""Count how often a run's network reads an image that is not a digit as one, with confidence.

    python benchmarks/non_digits.py [--data_dir DATA] RUN…

Letters that look like a digit are counted apart. With DATA, a folder with MNIST, it also prints
how the test digits are judged: rejected, unsure, and the calibration error.
"""

import argparse
from pathlib import Path

import numpy as np

from mnist_lightning import load
from mnist_lightning.data.datasets import SOURCES, DigitData
from mnist_lightning.evaluation import metrics
from mnist_lightning.evaluation.non_digits import KINDS, SIMILAR
from mnist_lightning.inference import UNSURE_BELOW, Recognizer
from mnist_lightning.preprocessing.normalization import normalize
from mnist_lightning.text import percent


def judge_digits(recognizer: Recognizer, data: DigitData) -> None:
    """Print how the test digits are judged."""
    batches = normalize(data.test_images).split(1000)
    judged = [recognizer.calibrated_probabilities(batch) for batch in batches]
    rows, rejected = (np.concatenate(part) for part in zip(*judged, strict=True))
    confidence, correct = rows.max(axis=1), rows.argmax(axis=1) == data.test_labels.numpy()
    unsure = confidence < UNSURE_BELOW
    print(f"  test digits: {percent(rejected.mean())} rejected, {percent(unsure.mean())} unsure;")
    print(f"  {(~correct & ~unsure).sum()} of the others are wrong;")
    print(f"  calibration error {percent(metrics.calibration(confidence, correct).error)}")


def main() -> None:
    """Print the number of confident readings of each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--data_dir", type=Path)
    options = parser.parse_args()
    data = SOURCES["mnist"].load(options.data_dir) if options.data_dir else None
    for run in options.runs:
        recognizer = load(run)
        print(run)
        confident = total = 0
        for name, draw in KINDS.items():
            readings = [recognizer.read(image) for image in draw()]
            wrong = sum(any(not digit.unsure for digit in digits) for digits in readings)
            print(f"  {name:20} {wrong:3} of {len(readings)}")
            if name != SIMILAR:
                confident, total = confident + wrong, total + len(readings)
        print(f"  without the last row {confident:3} of {total} = {100 * confident / total:.1f} %")
        if data is not None:
            judge_digits(recognizer, data)


if __name__ == "__main__":
    main()
