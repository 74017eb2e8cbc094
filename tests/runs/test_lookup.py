"""Run directories: created once, found by each kind of reference."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_lightning.errors import UserError
from mnist_lightning.runs import lookup, run_directory, summary_json
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


def test_links_to_directories_are_runs_and_other_links_are_not(tmp_path: Path) -> None:
    root = tmp_path / "logs"
    create_run(root, 1)
    target = create_run(tmp_path, 9).folder
    (root / "version_2").symlink_to(target)
    (root / "version_3").symlink_to("version_3")  # to itself
    (root / "version_4").symlink_to("nowhere")
    (root / "version_01").mkdir()
    runs = run_directory.list_runs(root)
    assert [run.folder.name for run in runs] == ["version_01", "version_1", "version_2"]
    (tmp_path / "link").symlink_to(root)
    assert len(run_directory.list_runs(tmp_path / "link")) == 3


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many summaries were read, folders listed, and folders searched for checkpoints."""
    counts: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def counted(*arguments: Any) -> Any:
            counts[name] += 1
            return function(*arguments)

        monkeypatch.setattr(owner, name, counted)

    count(summary_json, "read_bounded")
    count(os, "scandir")
    count(Path, "glob")
    return counts


@pytest.mark.parametrize("count", [10, 40])
def test_the_number_of_file_accesses_grows_with_the_number_of_runs_at_most(
    tmp_path: Path, calls: Counter[str], count: int
) -> None:
    for version in range(count):
        create_run(tmp_path, version, **{"dataset": "mnist", "val/accuracy": version / 100})

    def accesses(action: Callable[[], object]) -> dict[str, int]:
        calls.clear()
        action()
        return {name: calls[name] for name in ("scandir", "read_bounded", "glob")}

    once = {"scandir": 1, "read_bounded": count, "glob": 0}
    assert accesses(lambda: lookup.find("best", tmp_path)) == once
    assert accesses(lambda: lookup.find_network("best", tmp_path)) == once
    Run(tmp_path / f"version_{count - 3}").best.write_bytes(b"")
    listed = {"scandir": 1, "read_bounded": 0, "glob": 0}
    # `glob` itself lists the three folders that are searched.
    last = accesses(lambda: lookup.find("last", tmp_path))
    assert (last["glob"], last["read_bounded"]) == (3, 0)
    assert accesses(lambda: lookup.find("5", tmp_path)) == listed | {"scandir": 0}
    assert accesses(lambda: run_directory.create_next(tmp_path)) == listed


def test_messages_about_many_runs_are_short(
    tmp_path: Path, calls: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for version in range(30):
        create_run(tmp_path, version, dataset="mnist")
    with pytest.raises(UserError) as missing:
        lookup.find("99", tmp_path)
    names = [f"{version} (mnist)" for version in (0, 1, 2, 26, 27, 28, 29)]
    names.insert(3, "…")
    assert str(missing.value).endswith(f"existing runs: {', '.join(names)}")
    assert calls["read_bounded"] == 7
    Run(tmp_path / "version_0").best.write_bytes(b"")
    lookup.find("last", tmp_path)
    skipped = "version_1, version_2, version_3, …, version_26, version_27, version_28, version_29"
    assert capsys.readouterr().err == f"no checkpoint in {skipped}: using version_0\n"


RUNS = st.dictionaries(
    st.integers(0, 12),
    st.tuples(
        st.sampled_from(["mnist", "digits", None, 7]),
        st.sampled_from([0.5, 0.9, 1, None, "0.9", 2]),
        st.booleans(),
    ),
    max_size=8,
)


@given(RUNS)
def test_best_and_last_follow_their_definitions(runs: dict[int, tuple[Any, Any, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for version, (dataset, accuracy, has_checkpoint) in runs.items():
            run = create_run(root, version, **{"dataset": dataset, "val/accuracy": accuracy})
            if has_checkpoint:
                run.best.write_bytes(b"")
        scores = {
            version: (dataset if isinstance(dataset, str) else None, accuracy)
            for version, (dataset, accuracy, _) in sorted(runs.items())
            if accuracy in (0.5, 0.9, 1)
        }
        datasets = [dataset for dataset, _ in scores.values()]
        wanted = "mnist" if "mnist" in datasets else (datasets or [None])[-1]
        candidates = {
            version: accuracy
            for version, (dataset, accuracy) in scores.items()
            if dataset == wanted
        }
        best = max(candidates, key=lambda version: (candidates[version], version), default=None)
        last = max((version for version in runs if runs[version][2]), default=None)
        for reference, expected in (("best", best), ("last", last)):
            if expected is None:
                with pytest.raises(UserError):
                    lookup.find(reference, root)
            else:
                assert lookup.find(reference, root)[0].version == expected
        network = lookup.find_network("best", root)[0]
        assert network.is_pretrained if best is None else network.version == best
        assert run_directory.create_next(root).version == max(runs, default=-1) + 1


def test_a_directory_that_cannot_be_created_is_reported_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "logs"):
        with pytest.raises(UserError, match=r"--trainer\.default_root_dir DIR"):
            run_directory.create_next(root)
