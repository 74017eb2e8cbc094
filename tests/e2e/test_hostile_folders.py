"""Folders that a stranger made: links, forged tables, data sets, settings that read files."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.deployment.model_card import metadata
from mnist_lightning.deployment.responses import known_run
from mnist_lightning.errors import UserError
from mnist_lightning.inference import DigitPrediction, load
from mnist_lightning.runs.metrics_csv import read_metrics
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import as_csv
from mnist_lightning.training.logger import MAX_EVENTS
from tests.cli import checks
from tests.conftest import Command
from tests.e2e.conftest import FIT, LONGER, SHORT
from tests.strangers import from_elsewhere, unsign


def test_no_row_is_written_through_a_link(command: Command, trained: Run, tmp_path: Path) -> None:
    precious = tmp_path / "precious.csv"
    metrics = trained.folder / "metrics.csv"
    metrics.rename(precious)
    before = precious.read_bytes()
    metrics.symlink_to(precious)
    assert command(*LONGER).status == 0
    assert precious.read_bytes() == before
    assert not metrics.is_symlink()


def test_test_writes_into_no_other_run(command: Command, trained: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    trained.checkpoints.rename(other)
    trained.checkpoints.symlink_to(other)
    before = sorted(path.name for path in other.iterdir())
    result = command("test", "0", "--trainer.limit_test_batches", "1")
    assert result.status == 1
    assert "checkpoints is a link out of" in result.err
    assert sorted(path.name for path in other.iterdir()) == before


def test_an_ensemble_is_not_exported_through_a_link(
    command: Command, trained: Run, tmp_path: Path
) -> None:
    assert command(*FIT, "--seed_everything", "2").status == 0
    outside = tmp_path / "outside"
    outside.mkdir()
    (trained.folder.parent / "ensemble_0_1").symlink_to(outside)
    result = command("export", "0,1", "--format", "pt2")
    assert result.status == 1
    assert "ensemble_0_1 is a link; use the path of its target" in result.err
    assert not list(outside.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        b"step,dataset" + b",a" * 60_000 + b"\n" + b"1\n" * 2_000,
        b"step,dataset\n" + b"1\n" * 5_000_000,
    ],
)
def test_a_table_of_too_many_cells_is_not_read(
    command: Command, trained: Run, content: bytes
) -> None:
    metrics = trained.folder / "metrics.csv"
    metrics.write_bytes(content)
    with pytest.raises(UserError, match=r"metrics\.csv is too large: the limit is 3,000,000 cells"):
        read_metrics(metrics)
    assert command(*LONGER).status == 0
    assert read_metrics(metrics)


def test_an_event_file_of_too_many_records_is_moved_aside(command: Command, trained: Run) -> None:
    (events,) = trained.folder.glob("events.out.tfevents.*")
    header = struct.pack("<Q", 0)
    header += struct.pack("<I", masked_crc32c(header))
    record = header + struct.pack("<I", masked_crc32c(b""))
    events.write_bytes(record * (MAX_EVENTS + 1))
    result = command(*LONGER)
    assert result.status == 0
    assert "is damaged; renamed to events.out.events." in result.out


def idx(shape: tuple[int, ...], kind: int = 8, value: int = 0) -> bytes:
    sizes = b"".join(struct.pack(">i", size) for size in shape)
    return bytes([0, 0, kind, len(shape)]) + sizes + bytes([value]) * int(np.prod(shape))


@pytest.mark.parametrize(
    ("pictures", "labels"),
    [
        (idx((60, 28, 28), kind=10), idx((60,))),
        (idx((60, 28, 28), kind=9), idx((60,))),
        (idx((60, 5, 5)), idx((60,))),
        (idx((60, 28, 28)), idx((60,), value=200)),
        (idx((60, 28, 28)), idx((60, 1))),
        (b"", b""),
    ],
)
def test_files_that_are_no_data_set_are_damaged(
    tmp_path: Path, pictures: bytes, labels: bytes
) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for half in ("train", "t10k"):
        (raw / f"{half}-images-idx3-ubyte").write_bytes(pictures)
        (raw / f"{half}-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(UserError, match=r"the files of fashion_mnist in .* are damaged"):
        SOURCES["fashion_mnist"].load(tmp_path)


def test_what_a_former_torchvision_pickled_is_not_read(tmp_path: Path) -> None:
    processed = tmp_path / "FashionMNIST" / "processed"
    processed.mkdir(parents=True)
    for half in ("training", "test"):
        torch.save((torch.zeros(9, 28, 28).byte(), torch.zeros(9)), processed / f"{half}.pt")
    with pytest.raises(UserError, match="is from an old torchvision and is not read"):
        SOURCES["fashion_mnist"].load(tmp_path)


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
def test_no_setting_reads_a_file(
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


def test_settings_are_read_by_section_and_by_the_newer_yaml(
    command: Command, run_0: Run, tmp_path: Path
) -> None:
    (tmp_path / "model.yaml").write_text("network: TinyCNN\noptimizer: {class_path: SGD}\n")
    (tmp_path / "own.yaml").write_text("\ufeffmodel.optimizer.init_args.lr: 1e-3\n")
    files = ["--model", "model.yaml", "--config=own.yaml"]
    assert command(*FIT[:-2], *files).status == 0
    model = run_0.read_config()["model"]
    assert model["network"]["class_path"].endswith("TinyCNN")
    assert model["optimizer"]["init_args"]["lr"] == 0.001


def test_folders_in_folders_in_folders_end(command: Command, trained: Run, tmp_path: Path) -> None:
    deep = tmp_path / "pictures" / "3"
    for _ in range(60):
        deep /= "d"
    deep.mkdir(parents=True)
    folder = ["--data.dataset", "folder", "--data.folder", "pictures"]
    for arguments in (["predict", "pictures"], ["fit", *folder, *SHORT]):
        result = command(*arguments)
        assert result.status == 2
        assert "folders are nested more than 50 deep" in result.err


FORGED_CONFIGS: list[dict[Any, Any]] = [
    {3: 4, "model": {5: {6: 7}}},
    {"model": {"network": {"class_path": 7, "init_args": [1]}}},
    {"data": None},
    {"data": {"batch_size": "x"}},
    {"data": {"batch_size": [1]}},
    {"data": {"data_dir": "~nosuchuser/x", "test_share": [1]}},
    {"data": {"folder": {"a": 1}}},
    {"trainer": {"check_val_every_n_epoch": 0}},
    {"trainer": {"precision": "64-true"}},
    {"data": {"augment": [{"class_path": "StrokeWidth", "init_args": {"thicker": 1e9}}]}},
]


@pytest.mark.parametrize("forged", FORGED_CONFIGS, ids=str)
def test_a_forged_configuration_ends_in_one_line(
    command: Command, trained: Run, forged: dict[Any, Any]
) -> None:
    config = trained.read_config()
    for section, value in forged.items():
        both = isinstance(value, dict) and isinstance(config.get(section), dict)
        config[section] = config[section] | value if both else value
    checkpoint: Any = checks.load(trained.recent())
    checkpoint["config"] = config
    trained.recent().write_bytes(from_elsewhere(checkpoint))
    trained.config.write_text(yaml.safe_dump(config))
    summary = trained.summary()
    for changed in ({}, {"dataset": "folder"}, {"extra_checksums": None}, {"test/correct": None}):
        trained.write_summary(summary | changed)
        for arguments in (["report", "0"], ["runs", "0"], ["export", "0", "--format", "pth"]):
            result = command(*arguments)
            assert "looks like a bug" not in result.err, (arguments, result.err)
    for arguments in (["test", "0"], LONGER):
        result = command(*arguments)
        assert "looks like a bug" not in result.err, (arguments, result.err)
        assert len(result.err.splitlines()) <= 1


def test_a_validation_every_no_epoch_is_refused(command: Command) -> None:
    result = command(*FIT, "--trainer.check_val_every_n_epoch", "0")
    assert result.status == 2
    assert "To disable validation, give --trainer.limit_val_batches 0." in result.err


def test_an_unsigned_run_is_not_gone_on_with_by_itself(command: Command, trained: Run) -> None:
    unsign(trained)
    result = command(*FIT, "--auto_resume", "true")
    assert result.status == 0
    assert "version_0: it was not made on this machine; add --trust to allow it" in result.out
    assert "run: lightning_logs/version_1" in result.out
    unsign(Run(trained.folder.with_name("version_1")))
    result = command(*FIT, "--auto_resume", "true", "--trust")
    assert result.status == 0
    assert "version_1 is finished" in result.out


def test_text_that_is_none_lists_no_fewer_runs(trained: Run) -> None:
    trained.write_summary(trained.summary() | {"dataset": "\ud800", "network": {"class_path": 7}})
    assert json.dumps(known_run(trained).model_dump()).encode()
    assert known_run(trained).dataset == r"\ud800"


@pytest.mark.parametrize("classes", [0, 1])
def test_a_network_that_cannot_choose_is_refused(
    command: Command, trained: Run, classes: int
) -> None:
    checkpoint: Any = checks.load(trained.best)
    checkpoint["network"]["init_args"]["num_classes"] = classes
    for name, weights in checkpoint["state_dict"].items():
        if name.startswith("network.") and weights.shape[:1] == (10,):
            checkpoint["state_dict"][name] = weights[:classes].clone()
    trained.best.write_bytes(from_elsewhere(checkpoint))
    result = command("export", "0", "--format", "pth")
    assert result.status == 1
    assert f"has {classes} classes; expected 2 to 200" in result.err


def test_a_network_that_diverged_is_unsure(command: Command, trained: Run, tmp_path: Path) -> None:
    checkpoint: Any = checks.load(trained.best)
    for weights in checkpoint["state_dict"].values():
        if weights.is_floating_point():
            weights.fill_(float("nan"))
    trained.best.write_bytes(from_elsewhere(checkpoint))
    picture = Image.new("L", (60, 60), 255)
    picture.paste(0, (28, 10, 33, 50))
    picture.save(tmp_path / "one.png")
    result = command("predict", "one.png", "--run", "0")
    assert "unsure" in result.out
    (reading,) = load(trained.folder).read(picture)
    assert isinstance(reading, DigitPrediction)
    assert reading.unsure


def test_a_proposed_option_is_a_word_of_the_shell(command: Command, trained: Run) -> None:
    checkpoint: Any = checks.load(trained.best)
    checkpoint["network"]["class_path"] = "a.TinyCNN; touch executed\n\x1b[31m"
    trained.best.write_bytes(from_elsewhere(checkpoint))
    result = command(*FIT, "--init_from", "0")
    assert result.status == 2
    assert len(result.err.splitlines()) == 1
    assert "--model.network 'TinyCNN; touch executed" in result.err


def test_a_wide_formula_is_text() -> None:
    assert as_csv(["a"], [["\uff1d1+1"], ["=1+1"]]) == "a\n'\uff1d1+1\n'=1+1\n"


def test_a_model_card_has_no_forged_test(trained: Run) -> None:
    recognizer = load(trained.folder)
    for correct, total in ((None, 10), (11, 10), (5, 0), (-1, 10)):
        forged = trained.summary() | {"test/correct": correct, "test/total": total}
        about = metadata(forged | {"extra_checksums": None}, recognizer)
        from mnist_lightning.deployment.model_card import summarize

        assert "test images" not in summarize(about)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_the_projector_s_list_is_a_file(command: Command, trained: Run, make: Any) -> None:
    listed = trained.folder / "projector_config.pbtxt"
    listed.unlink(missing_ok=True)
    make(listed)
    result = command(*LONGER, "--dashboards", "full")
    assert (result.status, "pbtxt is not a regular file; remove it" in result.err) == (1, True)


@pytest.mark.parametrize(
    ("section", "name", "path"),
    [
        ("data", "augment", "mnist_lightning.data.augmentations.Deformation"),
        ("trainer", "callbacks", "lightning.pytorch.callbacks.ModelSummary"),
    ],
)
def test_a_list_of_a_thousand_classes_is_refused(
    command: Command, trained: Run, section: str, name: str, path: str
) -> None:
    checkpoint: Any = checks.load(trained.best)
    checkpoint["config"][section][name] = [{"class_path": path}] * 1000
    trained.best.write_bytes(from_elsewhere(checkpoint))
    result = command("test", "0")
    assert result.status == 1
    assert f"{section}.{name}: invalid list of 1000 items" in result.err
