"""Files that are valid, but need much more time or memory than usual."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mnist_lightning import files
from mnist_lightning.errors import UserError
from mnist_lightning.runs.metrics_csv import KEYS, read_metrics, truncate_metrics
from mnist_lightning.runs.predictions_csv import read_labels
from mnist_lightning.runs.run_directory import Run
from tests.conftest import Command
from tests.e2e.conftest import FIT, LONGER
from tests.unsigned_files import edit_checkpoint, remove_signatures


def test_the_labels_of_a_table_of_the_maximum_size_are_read_in_bounded_time(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    row = ",0,0,1" + ",0" * 199
    rows = "\n".join(f"{number}{row}" for number in range(110_000))
    path.write_text(f"index,true,predicted\n{rows}\n")
    began = time.process_time()
    assert len(read_labels(path).true) == 110_000
    assert time.process_time() - began < 4


def lbfgs(**options: int) -> dict[str, Any]:
    return {"model": {"optimizer": {"class_path": "LBFGS", "init_args": options}}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": {"extra": ["mnist"], "extra_share": 0.99}}, "data.extra_share 0.99 exceeds 0.75"),
        (lbfgs(max_iter=10_000), "model.optimizer.init_args.max_iter 10000 exceeds 100"),
        (lbfgs(max_eval=10_000), "model.optimizer.init_args.max_eval 10000 exceeds 125"),
        (lbfgs(history_size=9_000), "model.optimizer.init_args.history_size 9000 exceeds 100"),
    ],
)
def test_costly_options_of_a_run_from_elsewhere_are_refused(
    command: Command, trained: Run, options: dict[str, dict[str, Any]], message: str
) -> None:
    with edit_checkpoint(trained.recent()) as checkpoint:
        for section, values in options.items():
            checkpoint["config"][section].update(values)
    trained.config.unlink()
    result = command(*LONGER)
    assert result.status == 1
    assert f"{message}, the limit for a run from elsewhere" in result.err


def test_lists_of_vectors_longer_than_the_history_are_damaged(
    command: Command, tmp_path: Path
) -> None:
    options = ("--model.optimizer", "LBFGS", "--model.optimizer.max_iter", "2")
    assert command(*FIT, *options).status == 0
    run = Run(tmp_path / "lightning_logs" / "version_0")
    remove_signatures(run)
    for path in run.checkpoints.glob("last*.ckpt"):
        with edit_checkpoint(path) as checkpoint:
            state = checkpoint["optimizer_states"][0]["state"][0]
            state["old_dirs"] = [state["d"].clone() for _ in range(101)]
    result = command(*LONGER)
    assert (result.status, "optimizer_states: old_dirs has 101 items" in result.out) == (1, True)


COUNTERS: dict[str, Callable[[Any], object]] = {
    "a method": lambda loop: loop["epoch_progress"]["current"].update(reset=0),
    "a large count": lambda loop: loop["epoch_progress"]["total"].update(ready=2**62),
    "another name": lambda loop: loop["epoch_loop.batch_progress"].update(increment_ready=1),
}


@pytest.mark.parametrize("name", COUNTERS)
def test_counters_with_other_names_or_sizes_are_damaged(
    command: Command, trained: Run, name: str
) -> None:
    remove_signatures(trained)
    for path in trained.checkpoints.glob("last*.ckpt"):
        with edit_checkpoint(path) as checkpoint:
            COUNTERS[name](checkpoint["loops"]["fit_loop"])
    result = command(*LONGER)
    assert (result.status, "last.ckpt is damaged: loops." in result.out) == (1, True)
    # An evaluation does not use the counters.
    with edit_checkpoint(trained.best) as checkpoint:
        checkpoint["loops"]["test_loop"]["batch_progress"]["total"]["reset"] = 1
    assert command("test", str(trained.best)).status == 0


@pytest.mark.parametrize(("width", "status"), [("02d", 0), ("01500000000d", 2)])
def test_the_width_of_a_number_in_a_file_name_is_limited(
    command: Command, tmp_path: Path, width: str, status: int
) -> None:
    (tmp_path / "names.yaml").write_text(
        "trainer:\n  callbacks:\n  - class_path: ModelCheckpoint\n"
        f"    init_args: {{filename: 'e{{epoch:{width}}}'}}\n"
    )
    result = command(*FIT, "--config", "names.yaml")
    assert (result.status, "99 characters" in result.err) == (status, status == 2), result.err


def test_a_directory_of_too_many_files_is_refused(
    command: Command, trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_RUN_FILES", 50)
    for number in range(51):
        (trained.folder / f"{number}.txt").touch()
    result = command(*LONGER)
    assert (result.status, "has more than 50 files" in result.err) == (1, True), result.err


def test_a_long_table_of_the_user_s_own_run_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    content = ",".join([*KEYS, "loss"]) + "\n" + "".join(f"{n},a,1\n" for n in range(400_000))
    path.write_text(content)
    with pytest.raises(UserError, match="too large"):
        read_metrics(path)
    truncate_metrics(path, 10**9, limited=False)
    assert path.read_text() == content
    truncate_metrics(path, 10**9)
    assert read_metrics(path) == []
    assert path.with_name("metrics.csv.damaged-1").exists()


def test_a_warning_that_quotes_a_file_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "stop.yaml").write_text(
        "trainer:\n  callbacks:\n  - class_path: EarlyStopping\n"
        '    init_args: {monitor: "val/x\\e[31mRED", strict: false, verbose: true}\n'
    )
    program = [sys.executable, "-m", "mnist_lightning", *FIT, "--config", "stop.yaml"]
    result = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "warning: Early stopping conditioned on" in result.stderr
    assert "RED" in result.stderr
    assert "\x1b[31m" not in result.stderr + result.stdout
