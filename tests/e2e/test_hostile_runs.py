"""Forged tables, summaries and networks of a run."""

import json
import struct
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from mnist_lightning.deployment.model_card import metadata
from mnist_lightning.deployment.responses import known_run
from mnist_lightning.errors import UserError
from mnist_lightning.inference import DigitPrediction, load
from mnist_lightning.runs.metrics_csv import read_metrics
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import as_csv
from mnist_lightning.training.logger import MAX_EVENTS, MAX_RECORD_BYTES
from tests.conftest import Command
from tests.e2e.conftest import FIT, LONGER
from tests.unsigned_files import edit_checkpoint, remove_signatures


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
    with pytest.raises(UserError, match=r"metrics\.csv is too large: the limit is 1,000,000 cells"):
        read_metrics(metrics)
    remove_signatures(trained)
    assert command(*LONGER).status == 0
    assert read_metrics(metrics)


def as_record(content: bytes) -> bytes:
    """Return a record of an event file."""
    length = struct.pack("<Q", len(content))
    checksums = (struct.pack("<I", masked_crc32c(part)) for part in (length, content))
    return length + next(checksums) + content + next(checksums)


def as_event(values: int) -> bytes:
    """Return an event whose summary has so many empty values."""
    summary = b"\x0a\x00" * values
    size = bytes((len(summary) >> shift) & 0x7F | 0x80 for shift in (0, 7, 14, 21)) + b"\x00"
    return b"\x2a" + size + summary


@pytest.mark.parametrize(
    "content",
    [
        as_record(b"") * (MAX_EVENTS + 1),
        as_record(as_event(MAX_RECORD_BYTES)),
        as_record(as_event(MAX_EVENTS)) * 4,
    ],
    ids=["many records", "a long record", "many values"],
)
def test_an_event_file_beyond_the_limits_is_moved_aside(
    command: Command, trained: Run, content: bytes
) -> None:
    (events,) = trained.folder.glob("events.out.tfevents.*")
    events.write_bytes(content)
    taken = trained.folder / events.name.replace("tfevents", "events")
    taken.mkdir()
    remove_signatures(trained)
    result = command(*LONGER)
    assert result.status == 0, result.err
    assert f"is damaged; renamed the file to {taken.name}.damaged-1" in result.out
    assert taken.is_dir()


def test_auto_resume_skips_an_unsigned_run(command: Command, trained: Run) -> None:
    remove_signatures(trained)
    result = command(*FIT, "--auto_resume", "true")
    assert result.status == 0
    assert "version_0: the run was not made on this machine; add --trust to resume it" in result.out
    assert "run: lightning_logs/version_1" in result.out
    remove_signatures(Run(trained.folder.with_name("version_1")))
    result = command(*FIT, "--auto_resume", "true", "--trust")
    assert result.status == 0
    assert "version_1 is finished" in result.out


def test_a_run_with_invalid_text_in_its_summary_is_listed(trained: Run) -> None:
    trained.write_summary(trained.summary() | {"dataset": "\ud800", "network": {"class_path": 7}})
    assert json.dumps(known_run(trained).model_dump()).encode()
    assert known_run(trained).dataset == r"\ud800"


@pytest.mark.parametrize("classes", [0, 1])
def test_a_network_with_fewer_than_two_classes_is_rejected(
    command: Command, trained: Run, classes: int
) -> None:
    with edit_checkpoint(trained.best) as checkpoint:
        checkpoint["network"]["init_args"]["num_classes"] = classes
        for name, weights in checkpoint["state_dict"].items():
            if name.startswith("network.") and weights.shape[:1] == (10,):
                checkpoint["state_dict"][name] = weights[:classes].clone()
    result = command("export", "0", "--format", "pth")
    assert result.status == 1
    assert f"has {classes} classes; expected 2 to 200" in result.err


def test_a_prediction_of_a_diverged_network_is_unsure(
    command: Command, trained: Run, tmp_path: Path
) -> None:
    with edit_checkpoint(trained.best) as checkpoint:
        for weights in checkpoint["state_dict"].values():
            if weights.is_floating_point():
                weights.fill_(float("nan"))
    picture = Image.new("L", (60, 60), 255)
    picture.paste(0, (28, 10, 33, 50))
    picture.save(tmp_path / "one.png")
    result = command("predict", "one.png", "--run", "0")
    assert "unsure" in result.out
    (reading,) = load(trained.folder).read(picture)
    assert isinstance(reading, DigitPrediction)
    assert reading.unsure


def test_a_suggested_option_is_quoted_for_the_shell(command: Command, trained: Run) -> None:
    with edit_checkpoint(trained.best) as checkpoint:
        checkpoint["network"]["class_path"] = "a.TinyCNN; touch executed\n\x1b[31m"
    result = command(*FIT, "--init_from", "0")
    assert result.status == 2
    assert len(result.err.splitlines()) == 1
    assert "--model.network 'TinyCNN; touch executed" in result.err


def test_a_formula_with_a_fullwidth_equals_sign_is_escaped() -> None:
    assert as_csv(["a"], [["\uff1d1+1"], ["=1+1"]]) == "a\n'\uff1d1+1\n'=1+1\n"


def test_a_model_card_omits_invalid_test_results(trained: Run) -> None:
    recognizer = load(trained.folder)
    for correct, total in ((None, 10), (11, 10), (5, 0), (-1, 10)):
        forged = trained.summary() | {"test/correct": correct, "test/total": total}
        about = metadata(forged | {"extra_checksums": None}, recognizer)
        from mnist_lightning.deployment.model_card import summarize

        assert "test images" not in summarize(about)
