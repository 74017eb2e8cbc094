"""The commands, their help, and their exit status."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mnist_lightning
from mnist_lightning import __version__
from mnist_lightning.cli.exceptions import explain
from mnist_lightning.cli.main import COMMANDS, main
from tests.conftest import DIGITS, Command


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)


def test_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_the_program_help_imports_neither_torch_nor_lightning() -> None:
    script = (
        "import sys; from mnist_lightning.cli.main import main; main(['--help']); "
        "sys.exit(bool({'torch', 'lightning', 'numpy', 'rich'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_error_for_a_misspelled_command_suggests_the_correct_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fitt"]) == 2
    error = capsys.readouterr().err
    assert error == "mnist-lightning: error: unknown command 'fitt'; did you mean 'fit'?\n"


def test_a_missing_command_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--help"]) == 0
    assert f"example: python -m mnist_lightning {name}" in " ".join(
        capsys.readouterr().out.replace("examples:", "example:").split()
    )


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["--version"], 0), (["fitt"], 2), (["data", "--help"], 0), (["data", "nothing"], 2)],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_process_ends_with_its_status_and_complete_output(
    arguments: list[str], status: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "mnist_lightning", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert (done.stderr if status else done.stdout).endswith("\n")


def test_functions_registered_with_atexit_are_called() -> None:
    script = (
        "import atexit, sys; from mnist_lightning.cli.main import run; sys.argv[1:] = ['fitt']\n"
        "try: run()\n"
        "finally: atexit.register(print, 'done')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stdout == b"done\n"


def test_the_public_names_are_the_intended_ones() -> None:
    expected = {
        "DigitClassifier",
        "MNISTDataModule",
        "Recognizer",
        "UserError",
        "__version__",
        "load",
    }
    assert set(mnist_lightning.__all__) == expected
    for name in expected:
        assert getattr(mnist_lightning, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'classifier_'"):
        _ = mnist_lightning.classifier_


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_the_output_of_a_run_fits_narrow_and_wide_terminals(
    command: Command, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    few = [*DIGITS, "--trainer.max_epochs", "1", "--dashboards", "none"]
    printed = command("fit", *few).out + command("runs").out + command("test", "0").out
    assert "test accuracy" in printed.replace("\n", " ")
    # Frames are not broken. The terminal wraps lines of tables, layers and epochs.
    framed = [line for line in printed.splitlines() if line.startswith(("┌", "│", "└", "┏"))]
    assert framed
    assert max(map(len, framed)) <= columns


def test_no_color_disables_colors(command: Command, tmp_path: Path) -> None:
    few = [*DIGITS, "--trainer.max_epochs", "1", "--dashboards", "none"]
    for color, marks in (({"NO_COLOR": "1"}, False), ({"FORCE_COLOR": "1"}, True)):
        done = subprocess.run(
            [sys.executable, "-m", "mnist_lightning", "fit", *few],
            capture_output=True,
            cwd=tmp_path,
            env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"} | color,
        )
        assert done.returncode == 0, done.stderr
        assert (re.search(rb"\x1b\[[\d;]*3\dm", done.stdout) is not None) == marks, color


def test_the_error_for_a_nondeterministic_operation_names_the_options() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError) as raised:
            torch.zeros(2).put_(torch.tensor([0]), torch.tensor([1.0]))
    finally:
        torch.use_deterministic_algorithms(False)
    message, status = explain(raised.value)
    assert message.startswith("put_ is not deterministic on this device; give --trainer.det")
    assert status == 1
