"""Read and compare printed metrics, checkpoints and logs."""

import csv
import re
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_lightning.cli.verify import first_difference
from mnist_lightning.runs.run_directory import Run


def printed_accuracy(printed: str) -> str:
    match = re.search(r"test accuracy +│ ([\d.]+ %)", printed)
    assert match, printed
    return match[1]


def assert_equal(left: object, right: object) -> None:
    """Check that two nested values are equal at tolerance 0."""
    assert first_difference("it", left, right) is None


def load_checkpoint(path: Path) -> dict[str, object]:
    loaded: dict[str, object] = torch.load(path, weights_only=True)
    return loaded


def read_logs(run: Run) -> list[tuple[int, str, str]]:
    """Return each (step, tag, value) in metrics.csv without the test; check it with TensorBoard."""
    with (run.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = sorted(
        (int(row["step"]), tag, value)
        for row in rows
        for tag, value in row.items()
        if value and tag not in ("step", "dataset") and not tag.startswith("test/")
    )
    events = EventAccumulator(str(run.folder)).Reload()
    scalars = [
        (event.step, tag, event.value)
        for tag in events.Tags()["scalars"]
        for event in events.Scalars(tag)
        if not tag.startswith(("test/", "final/", "images_per_second"))
    ]
    scalars.sort()
    curves = [row for row in table if row[1] != "epoch"]
    assert [scalar[:2] for scalar in scalars] == [row[:2] for row in curves]
    assert [scalar[2] for scalar in scalars] == pytest.approx([float(row[2]) for row in curves])
    return table
