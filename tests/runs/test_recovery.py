"""A damaged file of a run is moved aside and named; the run continues with what is intact."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_lightning.runs.checkpoint import (
    DamagedCheckpointError,
    dump_checkpoint,
    read_checkpoint,
)
from mnist_lightning.runs.metrics_csv import read_metrics
from mnist_lightning.runs.recent_checkpoints import validate_checkpoint
from mnist_lightning.runs.run_directory import Run
from tests.cli.checks import read_logs
from tests.conftest import DIGITS
from tests.processes import run

pytestmark = pytest.mark.slow

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs."""
    folder = tmp_path_factory.mktemp("trained")
    assert run(["fit", *DIGITS, "--trainer.max_epochs", "3"], folder) == 0
    return folder


def resumed(trained: Path, folder: Path, name: str, damage: Damage) -> tuple[Run, str]:
    """Damage a file of a copy of the run and extend that; return it and what was printed."""
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    (folder / "printed").unlink()
    there = Run(folder / "lightning_logs" / "version_0")
    (path,) = there.folder.glob(name)
    damage(path)
    status = run(["resume", "0", "--trainer.max_epochs", "4"], folder)
    printed = (folder / "printed").read_text()
    assert status == 0, printed
    assert "looks like a bug" not in printed
    assert there.summary()["epochs"] == 4
    assert there.summary()["test/total"] == 297
    return there, printed


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def changed(change: Callable[[dict[str, Any]], object]) -> Damage:
    """A checkpoint that is whole but makes no sense."""

    def damage(path: Path) -> None:
        checkpoint = read_checkpoint(path)
        change(checkpoint)
        path.write_bytes(dump_checkpoint(checkpoint))

    return damage


UNREADABLE: dict[str, Damage] = {
    "a link to nothing": lambda path: replaced(path, lambda p: p.symlink_to("nowhere")),
    "a folder": lambda path: replaced(path, Path.mkdir),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00\x01" * 100),
}
NONSENSE: dict[str, Damage] = {
    "no loops": changed(lambda c: c.pop("loops")),
    "no callbacks": changed(lambda c: c.pop("callbacks")),
    "loops of another shape": changed(lambda c: c["loops"].update(fit_loop=[1])),
    "steps that do not match": changed(lambda c: c.update(global_step=7)),
    "a negative counter": changed(
        lambda c: c["loops"]["fit_loop"]["epoch_progress"]["current"].update(ready=-1)
    ),
    "an optimizer of another network": changed(
        lambda c: c["optimizer_states"][0]["state"][0].update(exp_avg=torch.zeros(3))
    ),
    "no optimizer": changed(lambda c: c.update(optimizer_states=[])),
    "weights of another network": changed(
        lambda c: c["state_dict"].update({"network.head.1.weight": torch.zeros(2, 2)})
    ),
    "a weight that is text": changed(lambda c: c["state_dict"].update({"network.x": "text"})),
    "a random state of another shape": changed(
        lambda c: c["callbacks"]["RandomState"].update(torch=torch.zeros(3))
    ),
}


@pytest.mark.parametrize(
    "damage", [*UNREADABLE.values(), *NONSENSE.values()], ids=[*UNREADABLE, *NONSENSE]
)
def test_the_checkpoint_before_a_damaged_one_is_resumed(
    trained: Path, tmp_path: Path, damage: Damage
) -> None:
    there, printed = resumed(trained, tmp_path, "checkpoints/last.ckpt", damage)
    assert "using the previous checkpoint" in printed
    assert "after epoch 2, from lightning_logs/version_0/checkpoints/last-1.ckpt" in printed
    assert "renamed to last.ckpt.damaged-1" in printed
    assert os.path.lexists(there.checkpoints / "last.ckpt.damaged-1")
    for path in there.checkpoints.glob("*.ckpt"):
        validate_checkpoint(read_checkpoint(path))


def test_a_damaged_best_checkpoint_is_restored_from_another(trained: Path, tmp_path: Path) -> None:
    there, printed = resumed(trained, tmp_path, "checkpoints/best.ckpt", UNREADABLE["no text"])
    assert "best.ckpt is damaged; renamed to best.ckpt.damaged-1" in printed
    assert "restored from last.ckpt" in printed
    assert (there.checkpoints / "best.ckpt.damaged-1").exists()


@pytest.mark.parametrize("name", ["config.yaml", "summary.json"])
@pytest.mark.parametrize("damage", UNREADABLE.values(), ids=UNREADABLE)
def test_a_damaged_record_of_a_run_is_written_anew(
    trained: Path, tmp_path: Path, name: str, damage: Damage
) -> None:
    there, printed = resumed(trained, tmp_path, name, damage)
    assert f"{name} is damaged; renamed to {name}.damaged-1" in printed
    assert os.path.lexists(there.folder / f"{name}.damaged-1")
    assert there.read_config()["trainer"]["max_epochs"] == 4


def cut_in_the_middle(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_bytes(
        "".join(lines[:2]).encode() + b"\x00\xffgarbage\n" + "".join(lines[2:]).encode()
    )


METRICS: dict[str, tuple[Damage, int]] = {
    "garbage in the middle": (cut_in_the_middle, 4),
    "a step that is no number": (
        lambda path: path.write_text(path.read_text().replace("\n13,", "\nthirteen,")),
        3,
    ),
    "other columns": (lambda path: path.write_text("a,b\n1,2\n"), 1),
    **{name: (damage, 1) for name, damage in UNREADABLE.items()},
}


@pytest.mark.parametrize(("damage", "epochs"), METRICS.values(), ids=METRICS)
def test_the_intact_rows_of_the_metrics_stay(
    trained: Path, tmp_path: Path, damage: Damage, epochs: int
) -> None:
    there, printed = resumed(trained, tmp_path, "metrics.csv", damage)
    assert "metrics.csv is damaged; renamed to metrics.csv.damaged-1" in printed
    assert os.path.lexists(there.folder / "metrics.csv.damaged-1")
    rows = read_metrics(there.folder / "metrics.csv")
    assert len([row for row in rows if row.get("epoch")]) == epochs


def overwritten(place: float, content: bytes) -> Damage:
    def damage(path: Path) -> None:
        whole = bytearray(path.read_bytes())
        at = int(place * len(whole))
        whole[at : at + len(content)] = content
        path.write_bytes(whole)

    return damage


EVENTS = {
    "garbage in the middle": overwritten(0.5, b"garbage" * 20),
    "a record of a huge length": overwritten(0, b"\xff" * 8),
    "a link to nothing": UNREADABLE["a link to nothing"],
    "a folder": UNREADABLE["a folder"],
}


@pytest.mark.parametrize("damage", EVENTS.values(), ids=EVENTS)
def test_a_damaged_event_file_is_moved_aside(trained: Path, tmp_path: Path, damage: Damage) -> None:
    there, printed = resumed(trained, tmp_path, "events.out.tfevents.*", damage)
    assert "is damaged; renamed to events.out.events." in printed
    assert [path for path in there.folder.iterdir() if path.name.endswith("damaged-1")]
    last = [row for row in _scalars(there) if row[:2] == ("epoch", 52)]
    assert last == [("epoch", 52, 4.0)]


def _scalars(there: Run) -> list[tuple[str, int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(there.folder)).Reload()
    return [
        (tag, event.step, event.value)
        for tag in events.Tags()["scalars"]
        for event in events.Scalars(tag)
    ]


def test_undamaged_logs_are_those_of_a_run_of_that_length(trained: Path, tmp_path: Path) -> None:
    there, printed = resumed(trained, tmp_path, "metrics.csv", lambda _: None)
    assert "damaged" not in printed
    assert len([row for row in read_logs(there) if row[1] == "epoch"]) == 4


def test_whatever_is_removed_from_a_checkpoint_is_missed(trained: Path) -> None:
    path = Run(trained / "lightning_logs" / "version_0").recent()
    for name in read_checkpoint(path):
        checkpoint = read_checkpoint(path)
        del checkpoint[name]
        if name in ("pytorch-lightning_version", "versions"):
            continue
        with pytest.raises(DamagedCheckpointError, match=name):
            validate_checkpoint(checkpoint)
