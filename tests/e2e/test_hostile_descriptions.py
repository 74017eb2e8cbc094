"""Descriptions in a checkpoint, and directories for new runs, from an attacker."""

import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_lightning.errors import UserError
from mnist_lightning.files import MAX_COPIED_BYTES, refuse_links
from mnist_lightning.runs.run_directory import Run
from tests.conftest import Command
from tests.e2e.conftest import FIT, LONGER
from tests.unsigned_files import edit_checkpoint, remove_signatures


def share_metadata(checkpoint: Any) -> None:
    """Add many references to a dictionary with many versions."""
    weights: Any = OrderedDict()
    weights._metadata = OrderedDict((f"m{n}", {"version": 1}) for n in range(10_000))
    checkpoint["callbacks"]["more"] = [weights] * 10_000


EDITS: dict[str, tuple[Callable[[Any], object], str]] = {
    "no model": (lambda c: c.update(config={}), "the configuration has no model"),
    "a tensor in the description": (
        lambda c: c["network"]["init_args"].update(num_classes=torch.tensor([10, 10])),
        "network contains a value of type Tensor",
    ),
    "a tensor in the configuration": (
        lambda c: c["config"]["data"].update(seed=torch.zeros(2)),
        "config contains a value of type Tensor",
    ),
    "shared bytes": (
        lambda c: c["config"]["data"].update(augment=[bytes(500_000)] * 1_000),
        "config contains a value of type bytes",
    ),
    "shared texts": (
        lambda c: c["config"]["data"].update(batch_size=["x" * 9_000] * 90_000),
        "data.batch_size: invalid",
    ),
    "shared metadata": (share_metadata, "more than 100,000 values"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITS)
def test_a_hostile_description_is_refused_in_one_line_and_bounded_time(
    command: Command, trained: Run, name: str
) -> None:
    edit, message = EDITS[name]
    with edit_checkpoint(trained.best) as checkpoint:
        edit(checkpoint)
    began = time.process_time()
    result = command("test", str(trained.best))
    assert (result.status, message in result.err) == (1, True), result.err
    assert result.err.count("\n") == 1
    assert time.process_time() - began < 15
    if name not in ("no model", "shared texts"):  # the weights alone are used
        result = command(*FIT, "--init_from", str(trained.best))
        assert (result.status, message in result.err) == (1, True), result.err


@pytest.mark.slow
@pytest.mark.parametrize("accuracy", [1e300, -1.0, float("inf")])
def test_a_best_accuracy_beyond_one_is_damaged(
    command: Command, trained: Run, accuracy: float
) -> None:
    with edit_checkpoint(trained.recent()) as checkpoint:
        checkpoint["callbacks"]["RunCheckpoints"]["best"]["val/accuracy"] = accuracy
    assert "no intact checkpoint" in command(*LONGER).err


def link_metrics(folder: Path, precious: Path) -> None:
    (folder / "metrics.csv").symlink_to(precious)


def hard_link_metrics(folder: Path, precious: Path) -> None:
    (folder / "metrics.csv").hardlink_to(precious)


def link_checkpoints(folder: Path, precious: Path) -> None:
    (folder / "checkpoints").symlink_to(precious.parent / "elsewhere")


def add_checkpoint(folder: Path, _: Path) -> None:
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"damaged")


def add_table(folder: Path, _: Path) -> None:
    (folder / "metrics.csv").write_text("a,b\n1,2\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "prepare", [link_metrics, hard_link_metrics, link_checkpoints, add_checkpoint, add_table]
)
def test_a_directory_with_other_files_does_not_become_a_run(
    command: Command, tmp_path: Path, prepare: Callable[[Path, Path], None]
) -> None:
    folder, precious = tmp_path / "run", tmp_path / "precious"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    precious.write_text("mine")
    prepare(folder, precious)
    before = sorted(folder.rglob("*"))
    result = command(*FIT, "--run_dir", str(folder))
    assert (result.status, "already contains" in result.err) == (2, True), result.err
    assert sorted(folder.rglob("*")) == before
    assert precious.read_text() == "mine"
    assert not list((tmp_path / "elsewhere").iterdir())


def test_large_hard_links_are_not_copied(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("a", "b"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(MAX_COPIED_BYTES // 2 + 1)
        (run / f"{name}.pbtxt").hardlink_to(tmp_path / name)
    with pytest.raises(UserError, match=r"b\.pbtxt is a hard link to a large file"):
        refuse_links(run, (".pbtxt",))


@pytest.mark.parametrize(
    ("signed", "message"), [(False, "best.ckpt has no signature of yours"), (True, "a bug")]
)
def test_an_unexpected_error_names_the_file_from_elsewhere(
    command: Command, trained: Run, monkeypatch: pytest.MonkeyPatch, signed: bool, message: str
) -> None:
    if not signed:
        remove_signatures(trained)

    def fail(*_: object) -> None:
        raise KeyError("unexpected")

    monkeypatch.setattr("mnist_lightning.networks.registry.build", fail)
    result = command("export", "0", "--format", "pth")
    assert (result.status, message in result.err) == (1, True), result.err
    assert "KeyError" in result.err
    assert result.err.count("\n") == 1
