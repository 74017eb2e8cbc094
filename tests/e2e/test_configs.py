"""Every file in configs/ trains and learns, and its header is complete."""

import re
from pathlib import Path

import pytest
import yaml

from mnist_lightning.runs.run_directory import Run
from tests.conftest import DIGITS, Command

# The epochs on the bundled digits, and the lowest test accuracy in percent: 4 to 10 points below
# those of three seeds (docs/results.md), as other processors round differently.
FLOORS = {
    "classic_cnn": (10, 86),
    "deep_cnn": (10, 84),
    "digit_net": (10, 89),
    "distilled": (10, 90),
    "dropout_cnn": (10, 68),
    "handwriting": (3, 94),
    "mlp": (10, 85),
    "record": (6, 92),
    "robust": (6, 86),
    "speedrun": (10, 92),
    "tiny": (10, 86),
}
# Fewer channels: the whole network takes minutes.
NARROWER = {"record": ["--model.network.width", "16"]}
NOT_TRAINED = {"my_handwriting", "record_gpu"}  # fine-tuning has tests; a GPU is rare
CONFIGS = sorted((Path(__file__).parent.parent.parent / "configs").glob("*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_trains_for_one_batch(command: Command, config: Path) -> None:
    limits = [f"--trainer.limit_{part}_batches=1" for part in ("train", "val", "test")]
    options = [*DIGITS, "--trainer.max_epochs", "1"]
    options += ["--data.batch_size", "16", "--data.eval_batch_size", "16"]  # for large networks
    if "extra" in yaml.safe_load(config.read_text())["data"]:
        options += ["--data.extra", "strokes"]  # MNIST is not on every machine
    result = command("fit", "--config", str(config), *options, *limits)
    assert result.status == 0, result.err
    assert "test accuracy" in result.out


def test_every_config_has_a_floor() -> None:
    assert {path.stem for path in CONFIGS} == FLOORS.keys() | NOT_TRAINED


@pytest.mark.parametrize("name", FLOORS)
def test_a_config_reaches_its_accuracy(command: Command, run_0: Run, name: str) -> None:
    epochs, floor = FLOORS[name]
    options = [*DIGITS, "--trainer.max_epochs", str(epochs), "--auto_resume", "false"]
    options += NARROWER.get(name, [])
    assert command("fit", "--config", name, *options, "--seed_everything", "1").status == 0
    assert 100 * run_0.summary()["test/accuracy"] >= floor


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_the_header_has_a_command_and_a_test_accuracy(config: Path) -> None:
    text = config.read_text()
    header = text.split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert f"python -m mnist_lightning fit --config configs/{config.name}" in header
    assert re.search("^# test accuracy (\\d|is )", header, re.M)
    assert isinstance(yaml.safe_load(text), dict)
