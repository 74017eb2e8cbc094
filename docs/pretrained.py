"""Train the pretrained network of the package, and make the files that depend on it.

    python docs/pretrained.py [--data_dir DATA] [--run RUN]

It trains `configs/handwriting.yaml` in `build/pretrained`, unless RUN is such a run. Then it writes
`mnist_lightning/pretrained/` and `docs/demo/index.html`. Run `docs/screenshots.py` afterwards.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import yaml

from mnist_lightning import load
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.evaluation.forgetting import read_images

ROOT = Path(__file__).parent.parent
PRETRAINED = ROOT / "mnist_lightning" / "pretrained"
CONFIG = ROOT / "configs" / "handwriting.yaml"
DEMO = ROOT / "docs" / "demo" / "index.html"
TRAINING = """

## Training

`python -m mnist_lightning fit --config configs/handwriting.yaml` trains it, in about 20
minutes on one core of an Intel Xeon with bfloat16. In a copy of the repository,
`make pretrained DATA=DIR` trains it, and writes this folder again.
"""
# The machine and the times of the training are not part of the product, nor is a loss in 16 bits.
OMITTED = ("device", "threads", "fit_seconds", "epoch_seconds", "started", "test/loss")


def config_checksum() -> str:
    """Return the SHA-256 of the options in the config, whatever its comments."""
    options = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()


def run_command(*words: str) -> None:
    """Run a command of the program."""
    subprocess.run([sys.executable, "-m", "mnist_lightning", *words], cwd=ROOT, check=True)


def export(reference: str, output: Path, *options: str) -> None:
    """Export a run as safetensors."""
    run_command("export", reference, "--format", "safetensors", "--output", str(output), *options)


def write_network(run: Path, data_dir: str) -> None:
    """Write the weights, the model card, the results and the checksums.

    The training computes with 16 bits, so its test may differ by an image. The network is tested
    again with 32 bits, and exported again with this result.
    """
    model = PRETRAINED / "model.safetensors"
    export(str(run), model, "--data.data_dir", data_dir)
    data = SOURCES["mnist"].load(Path(data_dir))
    labels = read_images(load(model), data.test_images).labels
    correct = int((labels == data.test_labels.numpy()).sum())
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    summary |= {"test/correct": correct, "test/accuracy": correct / len(labels)}
    kept = {name: value for name, value in summary.items() if name not in OMITTED}
    (PRETRAINED / "summary.json").write_text(json.dumps(kept, indent=2) + "\n")
    export("pretrained", model)
    card = PRETRAINED / "model.MODEL_CARD.md"
    text = card.read_text(encoding="utf-8") + TRAINING
    (PRETRAINED / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    card.unlink()
    checksums = {
        model.name: hashlib.sha256(model.read_bytes()).hexdigest(),
        str(CONFIG.relative_to(ROOT)): config_checksum(),
    }
    (PRETRAINED / "checksums.json").write_text(json.dumps(checksums, indent=2) + "\n")


def write_demo(path: Path) -> None:
    """Write the page with the pretrained network as one file."""
    run_command("export", "pretrained", "--format", "html", "--output", str(path))
    path.with_name(f"{path.stem}.MODEL_CARD.md").unlink()


def main() -> None:
    """Train, and write all files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--run", type=Path, help="a finished run of the config")
    options = parser.parse_args()
    run = options.run or ROOT / "build" / "pretrained"
    if options.run is None:
        config = ("--config", str(CONFIG), "--run_dir", str(run))
        run_command("fit", *config, "--data.data_dir", options.data_dir)
    write_network(run, options.data_dir)
    write_demo(DEMO)


if __name__ == "__main__":
    main()
