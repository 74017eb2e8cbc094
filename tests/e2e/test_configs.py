"""Every file in configs/ trains, and its header is complete."""

from pathlib import Path

import pytest
import yaml

from tests.conftest import DIGITS, Command

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


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_the_header_has_a_command_and_a_test_accuracy(config: Path) -> None:
    text = config.read_text()
    header = text.split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert f"python -m mnist_lightning fit --config configs/{config.name}" in header
    assert "test accuracy" in header
    assert isinstance(yaml.safe_load(text), dict)
