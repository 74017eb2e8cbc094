"""Hostile configurations read no file, and are reported in one line."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from mnist_lightning.files import LimitError, parse_yaml
from mnist_lightning.runs.run_directory import Run
from tests.conftest import Command
from tests.e2e.conftest import FIT, LONGER
from tests.unsigned_files import edit_checkpoint

READING_SETTINGS = [
    "trainer: {strategy: {class_path: lightning.pytorch.strategies.SingleDeviceStrategy, "
    "init_args: {checkpoint_io: PATH}}}",
    "trainer: {strategy: {class_path: lightning.pytorch.strategies.DDPStrategy, "
    "init_args: {cluster_environment: PATH}}}",
    "trainer: {strategy: {class_path: lightning.pytorch.strategies.DDPStrategy, "
    "init_args: {ddp_comm_hook: PATH}}}",
    "model: {network: PATH}",
    "trainer: {callbacks: PATH}",
    "trainer: {strategy: PATH}",
    "trainer: {profiler: PATH}",
    "\ufeffmodel: {\ufeffnetwork: PATH}",
]


@pytest.mark.parametrize("settings", READING_SETTINGS)
@pytest.mark.parametrize("place", ["secret", "se-cret", "folder/secret", "pipe"])
def test_no_setting_in_a_config_reads_another_file(
    command: Command, tmp_path: Path, settings: str, place: str
) -> None:
    (tmp_path / "folder").mkdir()
    if place == "pipe":
        os.mkfifo(tmp_path / place)
    else:
        (tmp_path / place).write_text("hunter2: token\n")
    for path in (place, str(tmp_path / place)):
        (tmp_path / "own.yaml").write_text(settings.replace("PATH", path))
        result = command(*FIT[:-2], "--config", "own.yaml")
        assert result.status == 2, result
        assert "hunter2" not in result.err + result.out
        assert "looks like a bug" not in result.err


def test_sections_and_yaml_1_2_numbers_are_read(
    command: Command, run_0: Run, tmp_path: Path
) -> None:
    (tmp_path / "model.yaml").write_text("network: TinyCNN\noptimizer: {class_path: SGD}\n")
    (tmp_path / "own.yaml").write_text("\ufeffmodel.optimizer.init_args.lr: 1e-3\n")
    files = ["--model", "model.yaml", "--config=own.yaml"]
    assert command(*FIT[:-2], *files).status == 0
    model = run_0.read_config()["model"]
    assert model["network"]["class_path"].endswith("TinyCNN")
    assert model["optimizer"]["init_args"]["lr"] == 0.001


FORGED_CONFIGS: list[dict[Any, Any]] = [
    {3: 4, "model": {5: {6: 7}}},
    {"model": {"network": {"class_path": 7, "init_args": [1]}}},
    {"data": None},
    {"data": {"batch_size": "x"}},
    {"data": {"batch_size": [1]}},
    {"data": {"data_dir": "~nosuchuser/x", "test_share": [1]}},
    {"trainer": {"check_val_every_n_epoch": 0}},
    {"trainer": {"precision": "64-true"}},
    {"data": {"augment": [{"class_path": "StrokeWidth", "init_args": {"thicker": 1e9}}]}},
]


# A configuration, and entries of the summary.
FORGED: list[tuple[dict[Any, Any], dict[str, Any]]] = [
    *((config, {}) for config in FORGED_CONFIGS),
    ({"data": None}, {"dataset": "folder"}),
    ({"data": {"folder": {"a": 1}}}, {"dataset": "folder"}),
    ({}, {"extra_checksums": None}),
    ({}, {"test/correct": None}),
]


@pytest.mark.parametrize(("forged", "summary"), FORGED, ids=str)
def test_a_forged_configuration_is_reported_in_one_line(
    command: Command, trained: Run, forged: dict[Any, Any], summary: dict[str, Any]
) -> None:
    config = trained.read_config()
    for section, value in forged.items():
        both = isinstance(value, dict) and isinstance(config.get(section), dict)
        config[section] = config[section] | value if both else value
    with edit_checkpoint(trained.recent()) as checkpoint:
        checkpoint["config"] = config
    trained.config.write_text(yaml.safe_dump(config))
    trained.write_summary(trained.summary() | summary)
    export = ["export", "0", "--format", "pth"]
    for arguments in (["report", "0"], ["runs", "0"], export, ["test", "0"], LONGER):
        result = command(*arguments)
        assert "looks like a bug" not in result.err, (arguments, result.err)
        assert len(result.err.splitlines()) <= 1


def test_check_val_every_n_epoch_0_is_rejected(command: Command) -> None:
    result = command(*FIT, "--trainer.check_val_every_n_epoch", "0")
    assert result.status == 2
    assert "To disable validation, give --trainer.limit_val_batches 0." in result.err


@pytest.mark.parametrize(
    ("section", "name", "path"),
    [
        ("data", "augment", "mnist_lightning.data.augmentations.Deformation"),
        ("trainer", "callbacks", "lightning.pytorch.callbacks.ModelSummary"),
    ],
)
def test_a_list_of_a_thousand_classes_is_rejected(
    command: Command, trained: Run, section: str, name: str, path: str
) -> None:
    with edit_checkpoint(trained.best) as checkpoint:
        checkpoint["config"][section][name] = [{"class_path": path}] * 1000
    result = command("test", "0")
    assert result.status == 1
    assert f"{section}.{name}: invalid list of 1000 items" in result.err


def test_each_alias_of_a_long_text_counts_with_its_length() -> None:
    text = f"a: &a {'x ' * 50_000}\nb: [{', '.join(['*a'] * 12)}]\n"
    with pytest.raises(LimitError, match="1,000,000 characters"):
        parse_yaml(text)
