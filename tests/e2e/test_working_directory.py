"""What lies in the working directory takes the place of nothing that the program uses."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import DIGITS

# The modules that Python itself imports to find a package to run, before any line of it.
BEFORE = {
    "runpy",
    "pkgutil",
    "importlib",
    "site",
    "sitecustomize",
    "usercustomize",
    "mnist_lightning",
}


def test_no_module_of_the_standard_library_is_replaced(tmp_path: Path) -> None:
    for name in sys.stdlib_module_names - BEFORE:
        (tmp_path / f"{name}.py").write_text(f"print('{name} is executed')\n")
    for arguments in (["--version"], ["fit", "--help"], ["test", "0"]):
        done = subprocess.run(
            [sys.executable, "-m", "mnist_lightning", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "is executed" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_figures_do_not_follow_its_matplotlibrc(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("savefig.bbox: tight\nsavefig.pad_inches: 80\n")
    fit = ["fit", *DIGITS, "--trainer.limit_train_batches", "2", "--trainer.max_epochs", "1"]
    for arguments in (fit, ["report", "0"]):
        command = [sys.executable, "-m", "mnist_lightning", *arguments]
        subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=120)
    pictures = list((tmp_path / "lightning_logs" / "version_0" / "report").glob("*.png"))
    assert pictures
    assert all(picture.stat().st_size < 1_000_000 for picture in pictures)
