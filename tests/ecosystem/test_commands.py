"""Habits of people who know Lightning: each command works, or is refused with an alternative."""

import shlex
import shutil
from pathlib import Path

import pytest

from tests.conftest import Command

FOLDER = Path(__file__).parent
DEFAULTS = {"--data.dataset": "digits", "--trainer.max_epochs": "1"}


def read_trials(name: str) -> list[tuple[str, str]]:
    """Return the commands of a table, and what each must show."""
    lines = (FOLDER / name).read_text().splitlines()
    trials = [line for line in lines if line and not line.startswith("#")]
    return [(trial.split(" -> ")[0], trial.split(" -> ")[1]) for trial in trials]


def words(command_line: str) -> list[str]:
    """Split a command; add the options of a short run to `fit`."""
    name, *options = shlex.split(command_line)
    missing = (pair for pair in DEFAULTS.items() if pair[0] not in options)
    is_run = name == "fit" and "--help" not in options
    return [name, *options, *(word for pair in missing if is_run for word in pair)]


@pytest.fixture
def folder(tmp_path: Path, command: Command) -> Path:
    """A directory with files of a user, in which the command runs."""
    shutil.copy(FOLDER / "own_classes.py", tmp_path / "own.py")
    shutil.copy(FOLDER.parent.parent / "samples" / "seven.png", tmp_path)
    (tmp_path / "one.yaml").write_text("data: {batch_size: 64}\n")
    (tmp_path / "two.yaml").write_text("data: {batch_size: 32}\n")
    return tmp_path


@pytest.mark.slow
# Of torch's profiler: the runs are short.
@pytest.mark.filterwarnings("ignore:.*Profiler (default schedule|clears events)")
@pytest.mark.parametrize(("commands", "evidence"), read_trials("works.txt"))
def test_it_works(folder: Path, command: Command, commands: str, evidence: str) -> None:
    for command_line in commands.split("; "):
        result = command(*words(command_line))
        assert result.status == 0, result.err
    file, has, text = evidence.partition(" has ")
    shown = (folder / file).read_bytes().decode(errors="replace") if has else result.out
    assert (text if has else evidence) in shown


@pytest.mark.slow
@pytest.mark.parametrize(("command_line", "alternative"), read_trials("refused.txt"))
def test_it_is_refused_before_training_with_an_alternative(
    folder: Path, command: Command, command_line: str, alternative: str
) -> None:
    result = command(*words(command_line))
    assert result.status == 2
    assert alternative in result.err
    assert len(result.err.splitlines()) == 1
    assert not (folder / "lightning_logs").exists()


@pytest.mark.slow
def test_early_stopping_reports_what_its_argument_verbose_asks_for(
    command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    callback = ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"]
    line = "fit --trainer.max_epochs 2"
    assert command(*words(line), *callback, "--trainer.callbacks.verbose", "true").status == 0
    assert "Metric val/loss improved" in caplog.text
    caplog.clear()
    assert command(*words(line), *callback).status == 0
    assert "Metric val/loss improved" not in caplog.text
