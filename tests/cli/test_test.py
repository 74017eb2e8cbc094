"""The commands validate and test."""

import re
import shutil

from mnist_lightning.runs.predictions_csv import read_predictions
from mnist_lightning.runs.run_directory import Run
from tests.cli.checks import printed_accuracy
from tests.conftest import DIGITS, Command


def test_test_prints_the_same_accuracy_as_fit(command: Command) -> None:
    fitted = command("fit", *DIGITS, "--trainer.max_epochs", "3")
    tested = command("test", "best")
    assert tested.status == 0
    assert printed_accuracy(tested.out) == printed_accuracy(fitted.out)


def test_test_shows_each_image(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    result = command("test", "version_0", "--each_image")
    assert result.status == 0, result.err
    table = read_predictions(run_0.predictions)
    lines = re.findall(r"^ *(\d+)  true (\d)  predicted (\d)(  wrong)?$", result.out, re.MULTILINE)
    assert len(lines) == 297
    for index, line in enumerate(lines):
        true, predicted = table.true[index], table.predicted[index]
        wrong = "" if true == predicted else "  wrong"
        assert line == (str(index), str(true), str(predicted), wrong)


def test_testing_another_checkpoint_does_not_change_the_predictions_of_the_run(
    command: Command, run_0: Run
) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "2")
    before = run_0.predictions.read_bytes()
    for arguments in (
        [str(run_0.recent(1))],
        ["0", "--trainer.limit_test_batches", "1", "--data.eval_batch_size", "50"],
    ):
        result = command("test", *arguments)
        assert result.status == 0
        assert run_0.predictions.read_bytes() == before
    assert "of 50" in result.out


def test_last_reports_newer_runs_without_a_checkpoint(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    shutil.copytree(run_0.folder, run_0.folder.with_name("version_1"))
    shutil.rmtree(run_0.folder.with_name("version_1") / "checkpoints")
    result = command("test", "last")
    assert result.status == 0
    assert "no checkpoint in version_1: using version_0" in result.err


def test_validate_shows_the_accuracy_of_the_best_checkpoint(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "2")
    result = command("validate")
    expected = run_0.summary()["val/accuracy"]
    assert f"{100 * expected:.2f} %" in result.out
    assert "of 200" in result.out
