"""Hostile files of a run are reported in one line, or replaced."""

import json
import os
import resource
import shlex
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mnist_lightning.runs.checkpoint import network_weights
from mnist_lightning.runs.run_directory import Run
from tests.cli.checks import load_checkpoint
from tests.conftest import Command
from tests.e2e.conftest import FIT, LONGER
from tests.unsigned_files import edit_checkpoint, unsigned_checkpoint


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_read_as_an_image(command: Command, trained: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "seven.png")
    result = command("predict", "seven.png")
    assert result.status == 1
    assert "not a regular file" in result.out


@pytest.mark.parametrize(
    "row", ["9" * 5_000 + ",digits", "1,digits,1_0", "1,digits,0.5\r", '"1",digits', "²,digits"]
)
def test_an_invalid_row_of_the_metrics_is_removed(command: Command, trained: Run, row: str) -> None:
    metrics = trained.folder / "metrics.csv"
    columns = metrics.read_text().splitlines()[0].count(",") + 1
    padded = row + "," * (columns - row.count(",") - 1)
    metrics.write_bytes(metrics.read_bytes() + padded.encode() + b"\n")
    result = command(*LONGER)
    assert result.status == 0, result.err
    assert "metrics.csv is damaged; renamed the file to metrics.csv.damaged-1" in result.out
    assert row not in metrics.read_text()


ODD_VALUES = {"a date": date(2026, 1, 1), "a set": {"a"}, "bytes": b"a"}


@pytest.mark.parametrize("kind", ODD_VALUES)
def test_a_configuration_with_unsupported_types_is_damaged(
    command: Command, trained: Run, kind: str
) -> None:
    config = trained.read_config()
    config["data"]["val_size"] = ODD_VALUES[kind]
    trained.config.write_text(yaml.safe_dump(config))
    report = command("report", "0")
    assert report.status == 1
    assert "config.yaml is damaged or not a configuration" in report.err
    assert command(*LONGER).status == 0  # with the configuration of the checkpoint
    assert trained.read_config()["data"]["val_size"] is None


@pytest.mark.parametrize("value", [torch.zeros(3), b"a", (1, 2), float("nan")])
def test_an_invalid_configuration_in_a_checkpoint_is_not_restored(
    command: Command, trained: Run, value: Any
) -> None:
    with edit_checkpoint(trained.recent()) as checkpoint:
        checkpoint["config"]["data"]["val_size"] = value
    trained.config.unlink()
    trained.config.symlink_to("nowhere")
    result = command(*LONGER)
    assert result.status == 1
    assert "Traceback" not in result.err
    reasons = ("data.val_size: invalid", "config contains a value of type")
    assert any(reason in result.err + result.out for reason in reasons)


def _without_wait_count(state: dict[str, Any]) -> None:
    del state["wait_count"]


def _with_text(state: dict[str, Any]) -> None:
    state["patience"] = "3"


@pytest.mark.parametrize("change", [_without_wait_count, _with_text, dict.clear])
def test_an_invalid_state_of_a_callback_is_damaged(
    command: Command, run_0: Run, change: Callable[[dict[str, Any]], None]
) -> None:
    stop = ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"]
    assert command(*FIT, *stop).status == 0
    with edit_checkpoint(run_0.recent()) as checkpoint:
        (key,) = [key for key in checkpoint["callbacks"] if key.startswith("EarlyStopping")]
        change(checkpoint["callbacks"][key])
    result = command(*LONGER)
    assert result.status == 1
    assert "last.ckpt is damaged: callbacks.EarlyStopping" in result.out


@pytest.mark.parametrize("value", [[1], {"a": [1]}, torch.zeros(2), 0.5, {3: {4: 5}}])
@pytest.mark.parametrize("name", ["checksum", "split_seed", "val_size", "extra_checksums"])
def test_the_data_of_a_checkpoint_is_described_by_text_and_numbers(
    command: Command, trained: Run, name: str, value: Any
) -> None:
    with edit_checkpoint(trained.best) as checkpoint:
        checkpoint["MNISTDataModule"][name] = value
    for arguments in (["test", "0"], ["validate", "0"]):
        result = command(*arguments)
        assert result.status == 1
        assert f"MNISTDataModule['{name}'] is neither text nor a number" in result.err


@pytest.mark.parametrize("best", [{"val/accuracy": 0.5}, {"epoch": -1.0}, {"epoch": float("nan")}])
def test_a_best_score_without_an_epoch_is_damaged(
    command: Command, trained: Run, best: dict[str, float]
) -> None:
    with edit_checkpoint(trained.recent()) as checkpoint:
        checkpoint["callbacks"]["RunCheckpoints"]["best"] = best
    result = command(*LONGER)
    assert result.status == 1
    assert "callbacks.RunCheckpoints.best has no epoch" in result.out


@pytest.mark.parametrize("section", ["trainer", "data", "model"])
def test_auto_resume_skips_an_incomplete_configuration(
    command: Command, trained: Run, section: str
) -> None:
    whole = trained.read_config()
    for name in whole[section]:
        config = json.loads(json.dumps(whole))
        del config[section][name]
        trained.config.write_text(yaml.safe_dump(config))
        result = command(*FIT, "--auto_resume", "true", "--trainer.fast_dev_run", "true")
        assert result.status == 0, (name, result.err)
    config = {name: value for name, value in whole.items() if name != section}
    trained.config.write_text(yaml.safe_dump(config))
    assert command(*FIT, "--auto_resume", "true").status == 0
    with edit_checkpoint(trained.recent()) as checkpoint:
        checkpoint["config"] = config
    result = command(*LONGER)
    assert "Traceback" not in result.err
    assert "looks like a bug" not in result.err


@pytest.mark.parametrize("temperature", [float("nan"), 0.0, -1.0, float("inf"), 5e-324, "1", None])
def test_an_invalid_temperature_is_rejected(
    command: Command, trained: Run, tmp_path: Path, temperature: Any
) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    summary = trained.summary()
    trained.write_summary(summary | {"temperature": temperature})
    assert "temperature" not in trained.summary()  # so `report` cannot use it
    about = {"network": summary["network"], "temperature": temperature}
    own = network_weights(load_checkpoint(trained.best))
    path = tmp_path / "model.safetensors"
    safetensors.save_file(own, path, {"mnist_lightning": json.dumps(about)})
    result = command("predict", "x.png", "--run", str(path))
    assert result.status == 1
    assert "its temperature is invalid" in result.err


def test_suggested_commands_are_quoted_for_the_shell(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "a b; touch executed; $(touch executed)"
    result = command(*FIT, "--run_dir", str(folder))
    assert result.status == 0
    proposed = [line for line in result.out.splitlines() if "mnist_lightning test" in line]
    assert proposed
    assert shlex.split(proposed[0])[-1] == str(folder)


@pytest.mark.parametrize(
    "name",
    ["summary.json", "config.yaml", "metrics.csv", "predictions.csv", "last.ckpt", "best.ckpt"],
)
def test_a_huge_file_is_not_read(command: Command, trained: Run, name: str) -> None:
    path = (trained.checkpoints if name.endswith(".ckpt") else trained.folder) / name
    os.truncate(path, 3 * 10**9)  # sparse
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for arguments in (["runs"], ["runs", "0"], ["report", "0"], ["test", "0"], LONGER):
        result = command(*arguments)
        assert "Traceback" not in result.err
        assert "looks like a bug" not in result.err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


STRANGE_NETWORKS: list[Any] = [
    "TinyCNN",
    {"class_path": 3},
    {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1, "out_features": 1}},
    {"class_path": "mnist_lightning.networks.tiny_cnn.TinyCNN", "init_args": [1]},
    {"class_path": "mnist_lightning.networks.tiny_cnn.TinyCNN", "init_args": {"width": 10**9}},
    {"class_path": "mnist_lightning.networks.tiny_cnn.TinyCNN", "init_args": {"\x1b[31m": 1}},
]


@pytest.mark.parametrize("network", STRANGE_NETWORKS)
def test_init_from_rejects_an_invalid_network(command: Command, trained: Run, network: Any) -> None:
    with edit_checkpoint(trained.best) as checkpoint:
        checkpoint["network"] = network
    result = command(*FIT, "--init_from", "0")
    assert result.status in (1, 2)
    assert "Traceback" not in result.err
    assert "looks like a bug" not in result.err
    assert "\x1b" not in result.err


def test_invalid_weights_are_rejected(command: Command, trained: Run) -> None:
    whole: Any = load_checkpoint(trained.best)
    name = next(name for name in whole["state_dict"] if name.endswith("weight"))
    for weights in (torch.zeros(0), torch.zeros(2, 2, dtype=torch.cfloat), torch.ones(1).bool()):
        checkpoint = whole | {"state_dict": whole["state_dict"] | {name: weights}}
        trained.best.write_bytes(unsigned_checkpoint(checkpoint))
        for arguments in (
            [*FIT, "--init_from", "0"],
            ["test", "0"],
            ["predict", "x", "--run", "0"],
        ):
            result = command(*arguments)
            assert result.status != 0
            assert "looks like a bug" not in result.err


@pytest.mark.parametrize(
    ("content", "option"),
    [
        ("keep_last: null", "keep_last"),
        ("data: {batch_size: null}", "data.batch_size"),
        ("trainer: {accumulate_grad_batches: null}", "trainer.accumulate_grad_batches"),
        ("model: {optimizer: null}", "model.optimizer"),
        ("trainer: null", "trainer"),
        ("data: null", "data"),
    ],
)
def test_null_is_rejected_for_options_that_need_a_value(
    command: Command, tmp_path: Path, content: str, option: str
) -> None:
    (tmp_path / "nothing.yaml").write_text(content)
    result = command(*FIT, "--config", "nothing.yaml")
    assert (result.status, f"--{option}: null is not allowed" in result.err) == (2, True)
