"""A new data set and a new architecture change exactly the files that CONTRIBUTING.md names."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

LE_NET = '''"""The network of LeCun et al. (1998)."""

from torch import Tensor, nn


class LeNet(nn.Module):
    """Two convolutions and three linear layers: 61,706 parameters."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(),
            nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, num_classes),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to (B, num_classes) logits."""
        logits: Tensor = self.head(self.features(images))
        return logits
'''
LOAD_NEGATIVE = """
def _load_negative(data_dir: Path) -> DigitData:
    digits = _load_digits(data_dir)
    images = 255 - digits.train_images, 255 - digits.test_images
    return DigitData(
        "negative", images[0], digits.train_labels, images[1], digits.test_labels
    )


SOURCES: dict[str, Source] = {
    "negative": Source("white on black, 1,500 + 297", 2 / 15, _load_negative, _fetch_nothing),
"""
CONFIG = """# LeNet for one epoch.
#
#     python -m mnist_lightning fit --config configs/le_net.yaml
#
# The test accuracy of this example was not measured.

model:
  network: LeNet
trainer:
  max_epochs: 1
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the package, its configs and the files that a contributor edits."""
    for name in ("mnist_lightning", "configs", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "former")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def _named_in_contributing(thing: str) -> set[str]:
    """Return the paths in the entry `- **an architecture**: ...` of the section "Adding"."""
    adding = (ROOT / "CONTRIBUTING.md").read_text().split("## Adding")[1].split("\n## ")[0]
    entry = next(part for part in adding.split("\n- ") if part.startswith(f"**{thing}**"))
    return set(re.findall(r"`([\w/]+(?:\.py|/))`", entry))


def _run(checkout: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=checkout, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _replace_once(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_an_architecture_needs_only_the_documented_files(checkout: Path) -> None:
    assert _named_in_contributing("an architecture") == {
        "mnist_lightning/networks/", "tests/networks/test_networks.py", "configs/",
    }  # fmt: skip
    (checkout / "mnist_lightning/networks/le_net.py").write_text(LE_NET)
    (checkout / "configs/le_net.yaml").write_text(CONFIG)
    counts = checkout / "tests/networks/test_networks.py"
    _replace_once(counts, "PARAMETERS = {\n", 'PARAMETERS = {\n    "LeNet": 61_706,\n')

    limits = ("--trainer.limit_train_batches", "2", "--data.dataset", "digits")
    out = _run(checkout, "mnist_lightning", "fit", "--config", "configs/le_net.yaml", *limits)
    assert "LeNet" in out and "61,706" in out
    assert "test accuracy" in _run(checkout, "mnist_lightning", "test", "0")
    _run(checkout, "mnist_lightning", "export", "0", "--format", "pth", "--check_images", "20")
    _run(checkout, "pytest", "-q", "-p", "no:cacheprovider", "tests/networks/test_networks.py")


def test_a_data_set_needs_only_the_documented_file(checkout: Path) -> None:
    assert _named_in_contributing("a data set") == {"mnist_lightning/data/datasets.py"}
    path = checkout / "mnist_lightning/data/datasets.py"
    _replace_once(path, "\nSOURCES: dict[str, Source] = {\n", LOAD_NEGATIVE)
    _replace_once(path, '"digits", "strokes"\n]', '"digits", "strokes", "negative"\n]')

    assert "negative" in _run(checkout, "mnist_lightning", "data")
    options = ("--data.dataset", "negative", "--trainer.max_epochs", "1")
    out = _run(checkout, "mnist_lightning", "fit", *options, "--model.network", "TinyCNN")
    assert "297" in out
    assert "test accuracy" in _run(checkout, "mnist_lightning", "test", "0")
