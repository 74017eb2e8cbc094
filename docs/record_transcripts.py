"""Record the output of commands that the README shows, in results/transcripts.

    python docs/record_transcripts.py --data_dir DATA

DATA must contain MNIST. The commands run one after the other, in an empty folder.
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
TRANSCRIPTS = ROOT / "results" / "transcripts"
FIT = "python -m mnist_lightning fit"
# The commands of each transcript. Those of one folder share their runs.
RECORDED = {
    "predict": ["python -m mnist_lightning predict samples/ --run pretrained"],
    "fit": [FIT],
    "runs": [f"{FIT} --model.network DigitNet --trainer.max_epochs 4", f"{FIT[:-3]}runs 0 1"],
    "export": [f"{FIT[:-3]}export 0 --format onnx"],
    "verify": ["python -m mnist_lightning verify"],
}
INTERRUPTED_AFTER = "    3/10 "  # the start of a line of the interrupted run


def start(command: str, folder: Path) -> subprocess.Popen[str]:
    """Start a command with the output of a terminal of 100 columns."""
    return subprocess.Popen(
        [sys.executable, *command.split()[1:]],
        cwd=folder,
        env=os.environ | {"COLUMNS": "100", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def record(command: str, folder: Path) -> str:
    """Run a command; return it and its output, as a terminal shows them."""
    printed, _ = start(command, folder).communicate()
    return f"$ {command}\n{printed}"


def record_interrupted(folder: Path) -> str:
    """Press Ctrl-C in the fourth epoch of a training, and resume it."""
    process = start(FIT, folder)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(INTERRUPTED_AFTER):
            process.send_signal(signal.SIGINT)
            lines.append("^C\n")
    process.wait()
    return f"$ {FIT}\n{''.join(lines)}{record(f'{FIT[:-3]}resume', folder)}"


def link_inputs(folder: Path, data_dir: Path) -> None:
    """Give a folder the data and the samples of a checkout."""
    (folder / "data").symlink_to(data_dir.resolve())
    (folder / "samples").symlink_to(ROOT / "samples")


def main() -> None:
    """Write the transcripts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True)
    data_dir = parser.parse_args().data_dir
    TRANSCRIPTS.mkdir(exist_ok=True)
    with TemporaryDirectory() as first, TemporaryDirectory() as second:
        for name in (first, second):
            link_inputs(Path(name), data_dir)
        for name, commands in RECORDED.items():
            text = "".join(record(command, Path(first)) for command in commands)
            (TRANSCRIPTS / f"{name}.txt").write_text(text)
        (TRANSCRIPTS / "resume.txt").write_text(record_interrupted(Path(second)))


if __name__ == "__main__":
    main()
