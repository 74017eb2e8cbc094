"""Count how often a run's network reads an image that is not a digit as one, with confidence.

    python benchmarks/non_digits.py RUN…

Letters that look like a digit are counted apart.
"""

import argparse

from mnist_lightning import load
from mnist_lightning.evaluation.non_digits import KINDS, SIMILAR


def main() -> None:
    """Print the number of confident readings of each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    options = parser.parse_args()
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


if __name__ == "__main__":
    main()
