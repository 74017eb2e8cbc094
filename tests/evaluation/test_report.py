"""report, as typed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_lightning.runs import Run
from tests.conftest import DIGITS, Command


@pytest.fixture
def fitted(command: Command) -> Command:
    """A command line in a folder with one run of two epochs."""
    assert command("fit", *DIGITS, "--trainer.max_epochs", "2").status == 0
    return command


def test_report_draws_what_the_run_did(fitted: Command, run_0: Run) -> None:
    result = fitted("report")
    assert result.status == 0, result.err
    folder = run_0.folder / "report"
    names = {"samples.png", "curves.png", "predictions.png", "mistakes.png"}
    assert {path.name for path in folder.iterdir()} == names
    wrong = 297 - run_0.summary()["test/correct"]
    assert f"{wrong} of 297 test images were read wrongly; {min(wrong, 24)} are shown" in result.out
    for name in names:
        assert str(Path("lightning_logs/version_0/report") / name) in result.out
        picture = np.asarray(Image.open(folder / name).convert("L"))
        assert min(picture.shape) > 500
        assert picture.std() > 5, "nothing is drawn"


def test_a_report_made_again_is_the_same(fitted: Command, run_0: Run) -> None:
    pictures = []
    for _ in range(2):
        fitted("report", "0")
        folder = run_0.folder / "report"
        pictures.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert pictures[0] == pictures[1]


def test_what_is_missing_is_said_and_the_rest_is_drawn(fitted: Command, run_0: Run) -> None:
    run_0.predictions.unlink()
    (run_0.folder / "metrics.csv").unlink()
    result = fitted("report", "last")
    assert result.status == 0
    assert "no curves:" in result.out
    assert "has not been tested; python -m mnist_lightning test 0" in result.out
    assert [path.name for path in (run_0.folder / "report").iterdir()] == ["samples.png"]


def test_damaged_predictions_are_refused(fitted: Command, run_0: Run) -> None:
    content = run_0.predictions.read_text()
    for damaged in (content[:1000], content.replace("\n0,", "\n1,", 1), "", "nonsense\n1\n"):
        run_0.predictions.write_text(damaged)
        result = fitted("report", "0")
        assert result.status == 1
        assert "predictions.csv is no table of predictions, or damaged" in result.err
    assert not (run_0.folder / "report").exists()


def test_a_run_of_other_data_or_of_none_is_refused(fitted: Command, run_0: Run) -> None:
    summary = run_0.summary()
    run_0.write_summary({**summary, "checksum": "0" * 64})
    assert "is not the one that the run was trained on" in fitted("report", "0").err
    run_0.write_summary({**summary, "dataset": "mnist"})
    result = fitted("report", "0")
    assert result.status == 1
    assert "say where the data set is: --data.data_dir DATA" in result.err
    (run_0.folder / "summary.json").unlink()
    assert "was not made by `fit`" in fitted("report", "0").err
    shutil.rmtree(run_0.folder)
    assert "no run on mnist" in fitted("report").err
