"""The values of any `summary.json` have the documented types."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_lightning.runs import summary_json
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.runs.summary_json import read_summary
from mnist_lightning.runs.summary_table import format_table, read_row
from mnist_lightning.text import printable
from tests.conftest import DIGITS, AddRun, Command

KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("state", "started", "dataset", "checksum", "resume", "device"), str),
    **dict.fromkeys(("commit", "init_from", "teacher", "tested_epoch"), str),
    **dict.fromkeys(("network", "versions", "extra_checksums"), dict),
    **dict.fromkeys(("val_size", "split_seed", "train_size", "test_size", "parameters"), int),
    **dict.fromkeys(("seed", "threads", "epochs", "best_epoch"), int),
    **dict.fromkeys(("test/correct", "test/total"), int),
    **dict.fromkeys(("val/accuracy", "test/accuracy", "val/loss", "test/loss"), (int, float)),
    **dict.fromkeys(("fit_seconds", "epoch_seconds", "temperature"), (int, float)),
    **dict.fromkeys(("digit_slope", "digit_offset", "min_digit"), (int, float)),
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def test_each_entry_has_a_documented_type() -> None:
    assert summary_json._READERS.keys() == KINDS.keys()


CONTENTS = st.dictionaries(st.sampled_from(sorted([*KINDS, "other"])), VALUES)


@given(CONTENTS, st.lists(st.sampled_from(sorted(KINDS)), min_size=1, unique=True))
def test_some_entries_are_read_as_when_all_are_read(
    content: dict[str, Any], names: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary_json, "read_bounded", lambda *_: json.dumps(content).encode())
        summary = read_summary(Path("summary.json"))
        expected = {name: summary[name] for name in names if name in summary}
        assert read_summary(Path("summary.json"), names) == expected


@settings(max_examples=300)
@given(CONTENTS)
def test_every_value_has_its_type_or_is_missing(content: dict[str, Any]) -> None:
    path = Path("summary.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary_json, "read_bounded", lambda *_: json.dumps(content).encode())
        summary = read_summary(path)
        assert all(isinstance(value, KINDS[name]) for name, value in summary.items())
        assert not any(isinstance(value, bool) for value in summary.values())
        assert finite(summary)
        texts = [value for value in summary.values() if isinstance(value, str)]
        assert all(text == printable(text) for text in texts)
        format_table([read_row(Run(path.parent))]).encode()


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"state": 1e999}', "\x00", "3"])
def test_a_damaged_summary_has_no_entries(tmp_path: Path, text: str) -> None:
    (tmp_path / "summary.json").write_text(text)
    assert read_summary(tmp_path / "summary.json") == {}


def test_every_text_is_bounded(tmp_path: Path) -> None:
    long = "x" * 60_000
    content = {"dataset": long, "network": {"class_path": long}, "versions": {long: long}}
    (tmp_path / "summary.json").write_text(json.dumps(content))
    assert len(repr(read_summary(tmp_path / "summary.json"))) < 2_000


def test_a_summary_of_a_run_is_read_completely(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    assert run_0.summary() == json.loads((run_0.folder / "summary.json").read_text())


OPTIONAL = ["best_epoch", "epoch_seconds", "val/accuracy", "val/loss", "commit", "resume"]


@pytest.mark.slow
@pytest.mark.parametrize("value", [None, math.nan, "\ud800x", {"a": math.nan}, 10**30])
def test_no_value_of_a_summary_looks_like_a_bug(
    command: Command, add_run: AddRun, run_0: Run, value: Any
) -> None:
    short = (*DIGITS, "--trainer.max_epochs", "1", "--model.network", "TinyCNN")
    for size in ("50", "100"):
        add_run(*short, "--data.batch_size", size)
    path = run_0.folder / "summary.json"
    original = json.loads(path.read_text())
    report, export = ["report", "0"], ["export", "0", "--format", "pth", "--check_images", "3"]
    path.write_text(json.dumps(original | dict.fromkeys(OPTIONAL, value)))
    for arguments in (["runs"], ["runs", "0", "1"], report, export):
        assert command(*arguments).status == 0
    path.write_text(json.dumps(dict.fromkeys(original, value)))
    for arguments in (["runs"], ["runs", "0", "1"]):
        assert command(*arguments).status == 0
    for arguments in (report, export):
        result = command(*arguments)
        assert result.status == 1
        assert "looks like a bug" not in result.err
