"""Files with unexpected names or types in a run are renamed or reported."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_lightning.runs.run_directory import Run
from tests.conftest import DIGITS, Command
from tests.e2e.conftest import LONGER
from tests.images import draw_seven


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_a_lock_that_is_not_a_file_is_renamed(
    command: Command, trained: Run, make: Callable[[Path], None]
) -> None:
    lock = trained.folder / ".lock"
    lock.unlink(missing_ok=True)
    make(lock)
    result = command(*LONGER)
    assert result.status == 0, result.err
    assert ".lock is not a regular file; renamed the file to .lock.damaged-1" in result.out
    assert not (trained.folder / "nowhere").exists()


def test_a_file_with_the_name_of_the_embeddings_folder_is_replaced(
    command: Command, run_0: Run
) -> None:
    few = ["--trainer.limit_train_batches", "2", "--trainer.max_epochs"]
    assert command("fit", *DIGITS, *few, "1").status == 0
    for folder in [path for path in run_0.folder.iterdir() if path.name.isdigit()]:
        folder.rename(run_0.folder / "moved")
        folder.write_text("")
        assert command("resume", "0", "--trainer.max_epochs", "2").status == 0
        assert folder.is_dir()
        return
    pytest.fail("a run has embeddings")


def test_a_broken_link_does_not_hide_other_checkpoints(command: Command, trained: Run) -> None:
    trained.config.unlink()
    trained.best.unlink()
    (trained.checkpoints / "x.ckpt").symlink_to("nowhere")
    assert command("test", str(trained.folder)).status == 0


def test_a_run_in_a_folder_with_an_undecodable_name_is_refused(
    command: Command, trained: Run, tmp_path: Path
) -> None:
    folder = tmp_path / os.fsdecode(b"mine \xff\n")
    trained.folder.rename(folder)
    result = command("resume", str(folder), "--trainer.max_epochs", "2")
    assert result.status == 1
    assert "contains bytes that are not UTF-8; rename the file or folder" in result.err


@pytest.mark.parametrize("name", ["\u5b57" * 80, os.fsdecode(b"\xff" * 200), "a" * 240])
def test_images_with_long_names_are_saved(
    command: Command, trained: Run, tmp_path: Path, name: str
) -> None:
    for place, stem in enumerate((name, "b")):
        draw_seven().save(tmp_path / "image.png")
        (tmp_path / "image.png").rename(tmp_path / f"{place}{stem}.png")
    images = sorted(str(path) for path in tmp_path.glob("*.png"))
    result = command("predict", *images, "--run", "0", "--save_inputs", "seen")
    assert result.status == 0, result.out
    assert len(list((tmp_path / "seen").iterdir())) == 2
