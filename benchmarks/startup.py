"""Time commands that should start quickly, compared with Python and torch alone.

    python benchmarks/startup.py [--rounds 5] [--json FILE]

Each command runs as a process, and the commands alternate. A tiny network is trained first, for
the prediction.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from alternation import print_table, write_json
from PIL import Image, ImageDraw

PREDICT = "import mnist_lightning; mnist_lightning.load('best').predict('one.png')"
COMMANDS = {
    "python": ["-c", "pass"],
    "--help": ["-m", "mnist_lightning", "--help"],
    "--version": ["-m", "mnist_lightning", "--version"],
    "invalid command": ["-m", "mnist_lightning", "fitt"],
    "mistyped option": ["-m", "mnist_lightning", "fit", "--trainer.max_epoch", "3"],
    "import torch": ["-c", "import torch"],
    "load and predict": ["-c", PREDICT],
    "import lightning": ["-c", "import lightning.pytorch"],
    "fit of one batch": [
        *("-m", "mnist_lightning", "fit", "--data.dataset", "digits"),
        *("--trainer.max_steps", "1", "--trainer.enable_checkpointing", "false"),
    ],
}


def main() -> None:
    """Print the median time of each command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        image = Image.new("L", (60, 60), "white")
        ImageDraw.Draw(image).line((30, 10, 30, 50), fill="black", width=5)
        image.save(Path(folder, "one.png"))
        fit = [sys.executable, "-m", "mnist_lightning", "fit", "--data.dataset", "digits"]
        subprocess.run(
            [*fit, "--trainer.max_epochs", "1"], cwd=folder, check=True, capture_output=True
        )
        for _ in range(options.rounds):
            for name, arguments in COMMANDS.items():
                command = [sys.executable, *arguments]
                start = time.perf_counter()
                result = subprocess.run(command, cwd=folder, capture_output=True)
                seconds[name].append(time.perf_counter() - start)
                expected = 2 if name in ("invalid command", "mistyped option") else 0
                assert result.returncode == expected, result.stderr.decode()
    print_table(seconds, baseline="import torch")
    write_json({"seconds": seconds}, options.json)


if __name__ == "__main__":
    main()
