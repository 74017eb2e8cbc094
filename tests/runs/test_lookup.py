"""Run directories: created once, found by each kind of reference."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mnist_lightning.errors import UserError
from mnist_lightning.runs import lookup, run_directory
from mnist_lightning.runs.run_directory import Run


def create_run(root: Path, version: int, **summary: object) -> Run:
    run = Run(root / f"version_{version}")
    run.checkpoints.mkdir(parents=True)
    (run.folder / "summary.json").write_text(json.dumps(summary))
    return run


def test_a_new_version_is_one_above_the_highest(tmp_path: Path) -> None:
    root = tmp_path / "logs"
    assert run_directory.create_next(root).folder.name == "version_0"
    create_run(root, 7)
    assert run_directory.create_next(root).folder.name == "version_8"


def test_runs_created_at_the_same_time_have_different_directories(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: run_directory.create_next(tmp_path).folder, range(40)))
    assert len(set(claimed)) == 40


def test_a_run_is_found_by_number_folder_and_checkpoint(tmp_path: Path) -> None:
    run = create_run(tmp_path, 3)
    run.best.write_bytes(b"")
    assert lookup.find("3", tmp_path) == (run, None)
    assert lookup.find(str(run.folder), tmp_path) == (run, None)
    assert lookup.find(str(run.best), tmp_path) == (run, run.best)


def test_last_is_the_highest_number(tmp_path: Path) -> None:
    for version in (9, 10, 2):
        create_run(tmp_path, version).recent().write_bytes(b"")
    create_run(tmp_path, 11)  # failed before its first checkpoint
    assert lookup.find("last", tmp_path)[0].version == 10


def test_best_is_the_highest_val_accuracy_on_mnist(tmp_path: Path) -> None:
    create_run(tmp_path, 0, **{"dataset": "mnist", "val/accuracy": 0.98})
    best = create_run(
        tmp_path, 1, **{"dataset": "mnist", "val/accuracy": 0.99, "test/accuracy": 0.9}
    )
    create_run(tmp_path, 2, **{"dataset": "digits", "val/accuracy": 1.0})
    create_run(tmp_path, 3, **{"dataset": "mnist", "val/accuracy": None, "test/accuracy": 1.0})
    create_run(tmp_path, 4, dataset="mnist", state="running")
    assert lookup.find("best", tmp_path)[0] == best
    assert lookup.find("best", tmp_path, dataset="digits")[0].version == 2


def test_best_without_runs_on_mnist_reports_its_choice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_run(tmp_path, 0, **{"dataset": "digits", "val/accuracy": 0.9})
    assert lookup.find("best", tmp_path)[0].version == 0
    assert "no run trained on mnist" in capsys.readouterr().err


def test_the_error_for_a_missing_run_lists_the_existing_runs(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no run with a checkpoint .*python -m mnist_lightning fit"
    ):
        lookup.find("last", tmp_path)
    create_run(tmp_path, 0, dataset="mnist")
    with pytest.raises(UserError, match=r"run not found: 5 in .*; existing runs: 0 \(mnist\)"):
        lookup.find("5", tmp_path)


def test_other_and_damaged_folders_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "version_x").mkdir()
    (tmp_path / "version_1").write_text("a file")
    (tmp_path / "version_2").mkdir()
    (tmp_path / "version_2" / "summary.json").write_text('{"dataset": "mni')
    (tmp_path / "version_3").mkdir()
    (tmp_path / "version_3" / "summary.json").write_text("[1]")
    good = create_run(tmp_path, 4, **{"dataset": "mnist", "val/accuracy": 0.5})
    assert [run.version for run in run_directory.list_runs(tmp_path)] == [2, 3, 4]
    assert lookup.find("best", tmp_path)[0] == good


def test_a_directory_that_cannot_be_created_is_reported_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "logs"):
        with pytest.raises(UserError, match=r"--trainer\.default_root_dir DIR"):
            run_directory.create_next(root)
