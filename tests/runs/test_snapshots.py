"""Snapshots: they are read as they were written, and damaged ones are ignored."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mnist_lightning.runs import snapshots
from mnist_lightning.runs.snapshots import Digit, Filters, Snapshot

FILTERS = Filters(12, (2, 3, 3), 0.25, bytes(range(18)))
DIGIT = Digit(bytes(784), 7, "validation", [0.25, 0.75])
SNAPSHOT = Snapshot(3, 150, FILTERS, DIGIT, [[5, 1], [0, 4]])
Change = Callable[[dict[str, Any]], Any]


def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path) -> None:
    snapshots.write_snapshot(tmp_path / "new", SNAPSHOT)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["epoch_0003.json"]
    assert snapshots.read_snapshot(tmp_path / "new", 3) == SNAPSHOT
    assert snapshots.read_snapshot(tmp_path / "new", 4) is None
    empty = Snapshot(0, 0, None, DIGIT._replace(probabilities=None), None)
    snapshots.write_snapshot(tmp_path / "new", empty)
    assert snapshots.read_snapshot(tmp_path / "new", 0) == empty


CHANGES: dict[str, Change] = {
    "another epoch": lambda content: content.update(epoch=4),
    "an epoch that is a bool": lambda content: content.update(epoch=True),
    "a negative step": lambda content: content.update(step=-1),
    "a step that is a float": lambda content: content.update(step=1.5),
    "a huge step": lambda content: content.update(step=2**60),
    "no digit": lambda content: content.pop("digit"),
    "a digit that is a list": lambda content: content.update(digit=[1]),
    "too few pixels": lambda content: content["digit"].update(pixels="AAAA"),
    "pixels that are no base64": lambda content: content["digit"].update(pixels="<b>" * 300),
    "pixels that are a list": lambda content: content["digit"].update(pixels=[0] * 784),
    "an unknown part": lambda content: content["digit"].update(part="<script>"),
    "a label that is text": lambda content: content["digit"].update(label="7"),
    "NaN": lambda content: content["digit"].update(probabilities=[float("nan"), 0.5]),
    "Infinity": lambda content: content["digit"].update(probabilities=[float("inf")]),
    "a probability above 1": lambda content: content["digit"].update(probabilities=[1.5]),
    "no probabilities": lambda content: content["digit"].update(probabilities=[]),
    "many probabilities": lambda content: content["digit"].update(probabilities=[0] * 201),
    "filters that are text": lambda content: content.update(filters="x"),
    "two sizes": lambda content: content["filters"].update(shape=[2, 9]),
    "an empty size": lambda content: content["filters"].update(shape=[2, 0, 9], values=""),
    "a negative size": lambda content: content["filters"].update(shape=[-2, -3, 3]),
    "a wrong size": lambda content: content["filters"].update(shape=[2, 3, 4]),
    "a huge size": lambda content: content["filters"].update(shape=[32, 32, 32]),
    "too many filters": lambda content: content["filters"].update(
        shape=[33, 1, 1], values=base64.b64encode(bytes(33)).decode()
    ),
    "a scale that is infinite": lambda content: content["filters"].update(scale=float("inf")),
    "a scale that is huge": lambda content: content["filters"].update(scale=1e300),
    "a scale that is null": lambda content: content["filters"].update(scale=None),
    "a matrix that is not square": lambda content: content.update(confusion=[[1, 2], [3]]),
    "a wide matrix": lambda content: content.update(confusion=[[1, 2, 3]]),
    "a large matrix": lambda content: content.update(confusion=[[0] * 33] * 33),
    "a matrix of texts": lambda content: content.update(confusion=[["1"]]),
    "an empty matrix": lambda content: content.update(confusion=[]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_invalid_value_makes_a_snapshot_damaged(tmp_path: Path, change: str) -> None:
    snapshots.write_snapshot(tmp_path, SNAPSHOT)
    path = snapshots.snapshot_path(tmp_path, 3)
    content = json.loads(path.read_text())
    CHANGES[change](content)
    path.write_text(json.dumps(content))
    assert snapshots.read_snapshot(tmp_path, 3) is None


@pytest.mark.parametrize(
    "content",
    [
        b"", b"null", b"[]", b'"text"', b"{", b"\xff\xfe\x00", b"[" * 50_000, b"9" * 5_000,
        b'{"epoch": ' + b"9" * 5_000 + b"}", b" " * (snapshots.MAX_BYTES + 1),
    ],
)  # fmt: skip
def test_other_content_makes_a_snapshot_damaged(tmp_path: Path, content: bytes) -> None:
    snapshots.snapshot_path(tmp_path, 3).write_bytes(content)
    assert snapshots.read_snapshot(tmp_path, 3) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_or_a_folder_in_place_of_a_snapshot_is_damaged(tmp_path: Path) -> None:
    os.mkfifo(snapshots.snapshot_path(tmp_path, 3))
    snapshots.snapshot_path(tmp_path, 4).mkdir()
    assert [snapshots.read_snapshot(tmp_path, epoch) for epoch in (3, 4)] == [None, None]


def test_only_files_with_the_name_of_a_snapshot_are_listed(tmp_path: Path) -> None:
    for name in ("epoch_0002.json", "epoch_12345.json", "epoch_3.json", "epoch_0004.json.tmp", "x"):
        (tmp_path / name).touch()
    (tmp_path / ".epoch_0005.json.0123.tmp").touch()
    assert snapshots.list_epochs(tmp_path) == [2, 12345]
    assert snapshots.list_epochs(tmp_path / "missing") == []
    assert snapshots.list_epochs(tmp_path / "x") == []


def test_a_resumed_run_removes_only_later_snapshots(tmp_path: Path) -> None:
    for epoch in range(5):
        snapshots.write_snapshot(tmp_path, SNAPSHOT._replace(epoch=epoch))
    snapshots.snapshot_path(tmp_path, 9).mkdir()  # not a file of a run
    snapshots.remove_later_snapshots(tmp_path, 2)
    assert snapshots.list_epochs(tmp_path) == [0, 1, 2]


def test_a_long_run_keeps_few_snapshots_and_the_last_one(tmp_path: Path) -> None:
    epochs = [*range(995, 1_024), *range(9_995, 10_012)]
    for epoch in epochs:
        snapshots.write_snapshot(tmp_path, SNAPSHOT._replace(epoch=epoch))
    found = snapshots.list_epochs(tmp_path)
    assert [epoch for epoch in found if epoch <= 1_023] == [
        *range(995, 1_000),
        1000,
        1010,
        1020,
        1023,
    ]
    assert [epoch for epoch in found if epoch > 1_023] == [10_000, 10_011]
    assert sum(map(snapshots.is_kept, range(1_000_000))) == 3_700


def test_the_largest_snapshot_can_be_read(tmp_path: Path) -> None:
    classes = snapshots.MAX_CLASSES
    digit = DIGIT._replace(probabilities=[0.123456] * snapshots.MAX_PROBABILITIES)
    filters = Filters(2**40, (32, 17, 17), 1.234567e-10, bytes(32 * 17 * 17))
    counts = [[999_999] * classes] * classes
    largest = Snapshot(snapshots.MAX_EPOCH, snapshots.MAX_COUNT, filters, digit, counts)
    snapshots.write_snapshot(tmp_path, largest)
    assert snapshots.list_epochs(tmp_path) == [snapshots.MAX_EPOCH]
    assert snapshots.read_snapshot(tmp_path, snapshots.MAX_EPOCH) == largest
