"""What the tests of the commands compare: printed figures, checkpoints, logs."""

import csv
import re
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_lightning.runs import Run


def accuracy(printed: str) -> str:
    found = re.search(r"test accuracy +│ ([\d.]+ %)", printed)
    assert found, printed
    return found[1]


def assert_equal(left: object, right: object, where: str = "checkpoint") -> None:
    """Equal at tolerance 0, whatever the nesting."""
    if isinstance(left, torch.Tensor):
        assert isinstance(right, torch.Tensor) and torch.equal(left, right), where
    elif isinstance(left, dict):
        assert isinstance(right, dict) and left.keys() == right.keys(), where
        for key in left:
            assert_equal(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, list | tuple):
        assert isinstance(right, list | tuple) and len(left) == len(right), where
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_equal(one, other, f"{where}[{index}]")
    else:
        assert left == right, where


def load(path: Path) -> dict[str, object]:
    loaded: dict[str, object] = torch.load(path, weights_only=True)
    return loaded


def logged(run: Run) -> list[tuple[int, str, str]]:
    """Each (step, tag, value) of training and validation in metrics.csv, as TensorBoard has it."""
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
        if not tag.startswith("test/")
    ]
    scalars.sort()
    assert [scalar[:2] for scalar in scalars] == [row[:2] for row in table]
    assert [scalar[2] for scalar in scalars] == pytest.approx([float(row[2]) for row in table])
    return table
