"""Files in the working directory replace no module or setting of the program."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.conftest import DIGITS

# The modules that Python imports to find the package, before it executes the package.
BEFORE = {
    "runpy",
    "pkgutil",
    "importlib",
    "site",
    "sitecustomize",
    "usercustomize",
    "mnist_lightning",
}

# As pip writes it.
SCRIPT = """
from mnist_lightning.cli.main import run
if __name__ == "__main__":
    run()
"""
FIT = [*DIGITS, "--model.network", "TinyCNN", "--trainer.max_epochs", "1"]
FIT += ["--trainer.limit_train_batches", "2", "--trainer.accelerator", "cpu"]
COMMANDS = {
    "version": (["--version"], "mnist-lightning"),
    "help": (["fit", "--help"], "usage"),
    "test": (["test", "0"], "run not found"),
    "verify": (["verify", *FIT], "all checks passed"),
    "sweep": (["sweep", *FIT, "--space", "space.yaml", "--trials", "1"], "1 finished"),
    "two processes": (
        ["fit", *FIT, "--trainer.devices", "2", "--trainer.strategy", "ddp"],
        "test accuracy",
    ),
}


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=300
    )
    logs = "".join(path.read_text() for path in folder.rglob("*.log"))
    return done.stdout + done.stderr + logs


def _replace_modules(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / f"{name}.py").write_text(f"print('{name} is executed', flush=True)\n")
    (folder / "space.yaml").write_text("model.optimizer.lr: {log_uniform: [1.0e-4, 1.0e-2]}\n")


@pytest.mark.parametrize(("arguments", "expected"), COMMANDS.values(), ids=COMMANDS)
def test_no_module_is_replaced_for_python_m(
    tmp_path: Path, arguments: list[str], expected: str
) -> None:
    _replace_modules(tmp_path, sys.stdlib_module_names - BEFORE)
    printed = _run(["-m", "mnist_lightning", *arguments], tmp_path)
    assert "is executed" not in printed
    assert "Traceback" not in printed
    assert expected in printed


# Without `sweep`: both start each trial with `python -m mnist_lightning`.
@pytest.mark.parametrize("name", ["version", "help", "test", "verify", "two processes"])
def test_no_module_is_replaced_for_the_installed_script(tmp_path: Path, name: str) -> None:
    arguments, expected = COMMANDS[name]
    script = tmp_path / "bin" / "mnist-lightning"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    folder = tmp_path / "downloaded"
    folder.mkdir()
    _replace_modules(folder, sys.stdlib_module_names | BEFORE)
    printed = _run([str(script), *arguments], folder)
    assert "is executed" not in printed
    assert "Traceback" not in printed
    assert expected in printed


def test_a_matplotlibrc_in_the_working_directory_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("savefig.bbox: tight\nsavefig.pad_inches: 80\n")
    fit = ["fit", *DIGITS, "--trainer.limit_train_batches", "2", "--trainer.max_epochs", "1"]
    for arguments in (fit, ["report", "0"]):
        command = [sys.executable, "-m", "mnist_lightning", *arguments]
        subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=120)
    pictures = list((tmp_path / "lightning_logs" / "version_0" / "report").glob("*.png"))
    assert pictures
    assert all(picture.stat().st_size < 1_000_000 for picture in pictures)
