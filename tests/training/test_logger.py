"""A run's metrics: written once to both files, and truncated on resume."""

import csv
import struct
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from mnist_lightning.runs.metrics_csv import METRICS_FILE
from mnist_lightning.training.logger import MAX_EVENTS, RunLogger, truncate_logs


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / METRICS_FILE).open() as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_a_step_is_one_row(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path, "mnist")
    logger.log_metrics({"train/loss": 0.5}, 10)
    logger.log_metrics({"val/loss": 0.25}, 10)
    logger.log_metrics({"train/loss": 0.4}, 20)
    logger.close()
    assert rows(tmp_path) == [
        {"step": "10", "dataset": "mnist", "train/loss": "0.5", "val/loss": "0.25"},
        {"step": "20", "dataset": "mnist", "train/loss": "0.4"},
    ]
    assert scalars(tmp_path, "train/loss") == [(10, 0.5), (20, pytest.approx(0.4))]


def test_a_tag_is_written_once_per_step_and_steps_increase(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path, "mnist")
    for step, value in ((10, 1.0), (10, 2.0), (5, 3.0), (20, 4.0)):
        logger.log_metrics({"loss": value}, step)
    logger.close()
    assert scalars(tmp_path, "loss") == [(10, 1.0), (20, 4.0)]
    assert [row["loss"] for row in rows(tmp_path)] == ["1", "4"]


def test_the_epoch_is_in_the_table_but_is_no_curve(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path, "mnist")
    logger.log_metrics({"epoch": 1, "val/loss": 0.5}, 10)
    logger.close()
    assert rows(tmp_path)[0]["epoch"] == "1"
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"] == ["val/loss"]


def test_a_new_metric_adds_a_column_and_old_rows_stay(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path, "mnist")
    logger.log_metrics({"a": 1}, 1)
    logger.flush()
    logger.log_metrics({"b": 2}, 2)
    logger.close()
    assert [row.get("a") for row in rows(tmp_path)] == ["1", None]
    assert [row.get("b") for row in rows(tmp_path)] == [None, "2"]


def test_the_data_set_is_in_tensorboard(tmp_path: Path) -> None:
    RunLogger(tmp_path, "digits").close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tensors("dataset/text_summary")[0].tensor_proto.string_val == [b"digits"]


def test_a_resumed_run_has_a_single_curve(tmp_path: Path) -> None:
    first = RunLogger(tmp_path, "mnist")
    for step in range(1, 8):
        first.log_metrics({"loss": step / 8}, step)
    first.close()
    events = next(tmp_path.glob("events*"))
    events.write_bytes(events.read_bytes()[:-5])  # killed during a write
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write("8,mni")

    truncate_logs(tmp_path, 5, None, untrusted=True)
    time.sleep(1)  # the name of an event file has the second of its creation
    second = RunLogger(tmp_path, "mnist")
    for step in range(6, 9):
        second.log_metrics({"loss": step / 8}, step)
    second.close()
    assert scalars(tmp_path, "loss") == [(step, step / 8) for step in range(1, 9)]
    assert [int(row["step"]) for row in rows(tmp_path)] == list(range(1, 9))


def test_a_name_cannot_add_columns_lines_or_formulas(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path, "mnist")
    logger.log_metrics({"lr/x\x1b[31m\n=cmd,1": 0.5, "val/loss": 1.0}, 1)
    logger.log_metrics({"lr/x\x1b[31m\n=cmd,1": 0.5}, 1)
    logger.close()
    header, row, end = (tmp_path / "metrics.csv").read_text().split("\n")
    assert (header, row, end) == ("step,dataset,lr/x_[31m_=cmd_1,val/loss", "1,mnist,0.5,1", "")


@pytest.mark.slow
def test_the_events_of_a_long_run_of_the_user_are_kept(tmp_path: Path) -> None:
    length = struct.pack("<Q", 0)
    checksums = [struct.pack("<I", masked_crc32c(part)) for part in (length, b"")]
    path = tmp_path / "events.out.tfevents.1"
    content = length + checksums[0] + checksums[1]
    path.write_bytes(content * (MAX_EVENTS + 1))
    truncate_logs(tmp_path, 5, None, untrusted=False)
    assert path.stat().st_size == len(content) * (MAX_EVENTS + 1)
    truncate_logs(tmp_path, 5, None, untrusted=True)
    assert path.stat().st_size == len(content) * MAX_EVENTS
    assert (tmp_path / "events.out.events.1.damaged-1").exists()
