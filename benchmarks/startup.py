"""How long commands take that should take no time, against Python and torch alone.

    python benchmarks/startup.py [--rounds 5] [--json FILE]

A tiny network is trained first, so that there is a run to ask. Whole processes, in turns.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageDraw
from turns import table, write

ASK = "import mnist_lightning; mnist_lightning.load('best').predict('one.png')"
COMMANDS = {
    "python": ["-c", "pass"],
    "--help": ["-m", "mnist_lightning", "--help"],
    "--version": ["-m", "mnist_lightning", "--version"],
    "a command that is none": ["-m", "mnist_lightning", "fitt"],
    "import torch": ["-c", "import torch"],
    "load and predict": ["-c", ASK],
    "import lightning": ["-c", "import lightning.pytorch"],
    "fit of one batch": [
        *("-m", "mnist_lightning", "fit", "--data.dataset", "digits"),
        *("--trainer.max_steps", "1", "--trainer.enable_checkpointing", "false"),
    ],
}


def main() -> None:
    """Time each command as a process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    asked = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        picture = Image.new("L", (60, 60), "white")
        ImageDraw.Draw(picture).line((30, 10, 30, 50), fill="black", width=5)
        picture.save(Path(folder, "one.png"))
        fit = [sys.executable, "-m", "mnist_lightning", "fit", "--data.dataset", "digits"]
        subprocess.run(
            [*fit, "--trainer.max_epochs", "1"], cwd=folder, check=True, capture_output=True
        )
        for _ in range(asked.rounds):
            for name, arguments in COMMANDS.items():
                started = time.perf_counter()
                done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True)
                seconds[name].append(time.perf_counter() - started)
                assert done.returncode == (2 if "fitt" in arguments else 0), done.stderr.decode()
    table(seconds, against="import torch")
    write({"seconds": seconds}, asked.json)


if __name__ == "__main__":
    main()
