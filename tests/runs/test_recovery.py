"""A damaged file of a run is renamed and reported; the run resumes from the intact files."""

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


def damage_and_resume(trained: Path, folder: Path, name: str, damage: Damage) -> tuple[Run, str]:
    """Damage a file of a copied run and extend the run; return the run and the output."""
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    (folder / "printed").unlink()
    resumed_run = Run(folder / "lightning_logs" / "version_0")
    (path,) = resumed_run.folder.glob(name)
    damage(path)
    status = run(["resume", "0", "--trainer.max_epochs", "4"], folder)
    printed = (folder / "printed").read_text()
    assert status == 0, printed
    assert "looks like a bug" not in printed
    assert resumed_run.summary()["epochs"] == 4
    assert resumed_run.summary()["test/total"] == 297
    return resumed_run, printed


def replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def change_checkpoint(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Return a function that changes the content of a checkpoint, with a correct digest."""

    def damage(path: Path) -> None:
        checkpoint = read_checkpoint(path)
        change(checkpoint)
        path.write_bytes(dump_checkpoint(checkpoint))

    return damage


UNREADABLE: dict[str, Damage] = {
    "a link to nothing": lambda path: replace(path, lambda p: p.symlink_to("nowhere")),
    "a folder": lambda path: replace(path, Path.mkdir),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00\x01" * 100),
}
INVALID_CHECKPOINTS: dict[str, Damage] = {
    "no loops": change_checkpoint(lambda c: c.pop("loops")),
    "no callbacks": change_checkpoint(lambda c: c.pop("callbacks")),
    "loops of another shape": change_checkpoint(lambda c: c["loops"].update(fit_loop=[1])),
    "steps that do not match": change_checkpoint(lambda c: c.update(global_step=7)),
    "a negative counter": change_checkpoint(
        lambda c: c["loops"]["fit_loop"]["epoch_progress"]["current"].update(ready=-1)
    ),
    "an optimizer of another network": change_checkpoint(
        lambda c: c["optimizer_states"][0]["state"][0].update(exp_avg=torch.zeros(3))
    ),
    "no optimizer": change_checkpoint(lambda c: c.update(optimizer_states=[])),
    "weights of another network": change_checkpoint(
        lambda c: c["state_dict"].update({"network.head.1.weight": torch.zeros(2, 2)})
    ),
    "a weight that is text": change_checkpoint(
        lambda c: c["state_dict"].update({"network.x": "text"})
    ),
    "a random state of another shape": change_checkpoint(
        lambda c: c["callbacks"]["RandomState"].update(torch=torch.zeros(3))
    ),
    "a random state of another process": change_checkpoint(
        lambda c: c["callbacks"]["RandomState"].update(others=[{"torch": "text"}])
    ),
    "sums of another process that are text": change_checkpoint(
        lambda c: c.update(train_metrics=["text"])
    ),
    "sums of another process with other names": change_checkpoint(
        lambda c: c.update(train_metrics=[{"loss": torch.zeros(())}])
    ),
}


@pytest.mark.parametrize(
    "damage",
    [*UNREADABLE.values(), *INVALID_CHECKPOINTS.values()],
    ids=[*UNREADABLE, *INVALID_CHECKPOINTS],
)
def test_the_checkpoint_before_a_damaged_one_is_resumed(
    trained: Path, tmp_path: Path, damage: Damage
) -> None:
    resumed_run, printed = damage_and_resume(trained, tmp_path, "checkpoints/last.ckpt", damage)
    assert "using the previous checkpoint" in printed
    assert "after epoch 2, from lightning_logs/version_0/checkpoints/last-1.ckpt" in printed
    assert "renamed the file to last.ckpt.damaged-1" in printed
    assert os.path.lexists(resumed_run.checkpoints / "last.ckpt.damaged-1")
    for path in resumed_run.checkpoints.glob("*.ckpt"):
        validate_checkpoint(read_checkpoint(path))


def test_a_damaged_best_checkpoint_is_restored_from_another(trained: Path, tmp_path: Path) -> None:
    resumed_run, printed = damage_and_resume(
        trained, tmp_path, "checkpoints/best.ckpt", UNREADABLE["no text"]
    )
    assert "best.ckpt is damaged; renamed the file to best.ckpt.damaged-1" in printed
    assert "restored from last.ckpt" in printed
    assert (resumed_run.checkpoints / "best.ckpt.damaged-1").exists()


@pytest.mark.parametrize("name", ["config.yaml", "summary.json"])
@pytest.mark.parametrize("damage", UNREADABLE.values(), ids=UNREADABLE)
def test_a_damaged_config_or_summary_is_written_again(
    trained: Path, tmp_path: Path, name: str, damage: Damage
) -> None:
    resumed_run, printed = damage_and_resume(trained, tmp_path, name, damage)
    assert f"{name} is damaged; renamed the file to {name}.damaged-1" in printed
    assert os.path.lexists(resumed_run.folder / f"{name}.damaged-1")
    assert resumed_run.read_config()["trainer"]["max_epochs"] == 4


def insert_garbage(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_bytes(
        "".join(lines[:2]).encode() + b"\x00\xffgarbage\n" + "".join(lines[2:]).encode()
    )


METRICS_DAMAGE: dict[str, tuple[Damage, int]] = {
    "garbage in the middle": (insert_garbage, 4),
    "a step that is no number": (
        lambda path: path.write_text(path.read_text().replace("\n13,", "\nthirteen,")),
        3,
    ),
    "other columns": (lambda path: path.write_text("a,b\n1,2\n"), 1),
    **{name: (damage, 1) for name, damage in UNREADABLE.items()},
}


@pytest.mark.parametrize(("damage", "epochs"), METRICS_DAMAGE.values(), ids=METRICS_DAMAGE)
def test_the_intact_rows_of_damaged_metrics_are_kept(
    trained: Path, tmp_path: Path, damage: Damage, epochs: int
) -> None:
    resumed_run, printed = damage_and_resume(trained, tmp_path, "metrics.csv", damage)
    assert "metrics.csv is damaged; renamed the file to metrics.csv.damaged-1" in printed
    assert os.path.lexists(resumed_run.folder / "metrics.csv.damaged-1")
    rows = read_metrics(resumed_run.folder / "metrics.csv")
    assert len([row for row in rows if row.get("epoch")]) == epochs


def overwrite(place: float, content: bytes) -> Damage:
    def damage(path: Path) -> None:
        whole = bytearray(path.read_bytes())
        at = int(place * len(whole))
        whole[at : at + len(content)] = content
        path.write_bytes(whole)

    return damage


EVENT_DAMAGE = {
    "garbage in the middle": overwrite(0.5, b"garbage" * 20),
    "a record of a huge length": overwrite(0, b"\xff" * 8),
    "a link to nothing": UNREADABLE["a link to nothing"],
    "a folder": UNREADABLE["a folder"],
}


@pytest.mark.parametrize("damage", EVENT_DAMAGE.values(), ids=EVENT_DAMAGE)
def test_a_damaged_event_file_is_moved_aside(trained: Path, tmp_path: Path, damage: Damage) -> None:
    resumed_run, printed = damage_and_resume(trained, tmp_path, "events.out.tfevents.*", damage)
    assert "is damaged; renamed the file to events.out.events." in printed
    assert [path for path in resumed_run.folder.iterdir() if path.name.endswith("damaged-1")]
    last = [row for row in _scalars(resumed_run) if row[0] == "train/loss"][-1]
    assert last[1] == 52


def _scalars(resumed_run: Run) -> list[tuple[str, int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(resumed_run.folder)).Reload()
    return [
        (tag, event.step, event.value)
        for tag in events.Tags()["scalars"]
        for event in events.Scalars(tag)
    ]


def test_an_undamaged_run_is_extended_without_a_message(trained: Path, tmp_path: Path) -> None:
    resumed_run, printed = damage_and_resume(trained, tmp_path, "metrics.csv", lambda _: None)
    assert "damaged" not in printed
    assert len([row for row in read_logs(resumed_run) if row[1] == "epoch"]) == 4


def test_a_missing_entry_of_a_checkpoint_is_detected(trained: Path) -> None:
    path = Run(trained / "lightning_logs" / "version_0").recent()
    for name in read_checkpoint(path):
        checkpoint = read_checkpoint(path)
        del checkpoint[name]
        # Hyperparameters are for other programs.
        if name in ("pytorch-lightning_version", "versions") or "hyper_param" in name:
            continue
        if name.endswith("hparams_name"):
            continue
        with pytest.raises(DamagedCheckpointError, match=name):
            validate_checkpoint(checkpoint)
