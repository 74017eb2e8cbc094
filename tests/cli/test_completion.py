"""Shell completion, in a real bash."""

import shutil
import subprocess
from pathlib import Path

import pytest

from mnist_lightning.cli.main import COMMANDS
from tests.conftest import Command

pytestmark = pytest.mark.commands


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the script once."""
    path = tmp_path_factory.mktemp("completion") / "completion.sh"
    program = shutil.which("mnist-lightning")
    assert program is not None
    printed = subprocess.run([program, "completion", "bash"], capture_output=True, check=True)
    path.write_bytes(printed.stdout)
    return path


def completions(script: Path, *words: str, folder: Path) -> list[str]:
    """Return the completions of bash for the last word."""
    line = (
        f"source {script}; COMP_WORDS=(mnist-lightning {' '.join(map(repr, words))}); "
        f'COMP_CWORD={len(words)}; _mnist_lightning; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_options_and_runs_are_completed(script: Path, tmp_path: Path) -> None:
    for number in (0, 12):
        (tmp_path / "lightning_logs" / f"version_{number}").mkdir(parents=True)
    assert completions(script, "re", folder=tmp_path) == ["resume", "report", "reproduce"]
    assert {*COMMANDS, "--help"} < set(completions(script, "", folder=tmp_path))
    assert completions(script, "fit", "--data.batch", folder=tmp_path) == ["--data.batch_size"]
    assert "--seeds" in completions(script, "fit", "--see", folder=tmp_path)
    assert completions(script, "sweep", "--conf", folder=tmp_path) == ["--config", "--configs"]
    assert completions(script, "sweep", "--run_", folder=tmp_path) == []  # it is refused
    assert completions(script, "runs", "--mark", folder=tmp_path) == ["--markdown"]
    assert completions(script, "runs", "--js", folder=tmp_path) == ["--json"]
    assert completions(script, "test", "", folder=tmp_path) == [
        "best",
        "last",
        "pretrained",
        "0",
        "12",
    ]
    assert completions(script, "predict", "", folder=tmp_path) == []  # bash completes files


def test_zsh_loads_the_completion_of_bash(command: Command, script: Path) -> None:
    zsh = command("completion", "zsh").out
    assert "bashcompinit" in zsh
    assert script.read_text().split("_mnist_lightning()")[1] in zsh


def test_another_shell_is_refused(command: Command) -> None:
    result = command("completion", "fish")
    assert result.status == 2
    assert "fish" in result.err


def test_a_name_in_the_directory_of_the_runs_is_not_executed(script: Path, tmp_path: Path) -> None:
    logs = tmp_path / "lightning_logs"
    for name in ("version_3", "version_$(touch${IFS}made)", "version_`touch made`", "version_x"):
        (logs / name).mkdir(parents=True)
    assert completions(script, "test", "", folder=tmp_path) == ["best", "last", "pretrained", "3"]
    assert [path.name for path in tmp_path.iterdir()] == ["lightning_logs"]
