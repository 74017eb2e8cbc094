"""The source distribution and the wheel are complete."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FOLDERS = (
    ".ci",
    ".github",
    "benchmarks",
    "configs",
    "docs",
    "mnist_lightning",
    "notebooks",
    "tests",
)
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".ipynb_checkpoints")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the project, in which a build may write."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=IGNORED)
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git" and not path.name.startswith(".coverage"):
            shutil.copy(path, tmp_path)
    (tmp_path / "lightning_logs").mkdir()
    shutil.copy(ROOT / "lightning_logs" / "README.md", tmp_path / "lightning_logs")
    return tmp_path


def _build(checkout: Path, kind: str) -> Path:
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}('dist'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return checkout / "dist" / done.stdout.split()[-1]


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_source_distribution_contains_every_file(checkout: Path) -> None:
    expected = _files(checkout)
    with tarfile.open(_build(checkout, "sdist")) as archive:
        contained = {name.partition("/")[2] for name in archive.getnames()}
    assert not expected - contained


def test_the_wheel_contains_the_whole_package(checkout: Path) -> None:
    expected = {f"mnist_lightning/{name}" for name in _files(checkout / "mnist_lightning")}
    with zipfile.ZipFile(_build(checkout, "wheel")) as archive:
        contained = set(archive.namelist())
    assert expected == {name for name in contained if ".dist-info/" not in name}


def test_the_wheel_runs_anywhere_with_its_configs(checkout: Path, tmp_path: Path) -> None:
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    with zipfile.ZipFile(_build(checkout, "wheel")) as archive:
        archive.extractall(installed)
    elsewhere.mkdir()
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    for name in ("mlp", "configs/mlp.yaml"):
        done = subprocess.run(
            [sys.executable, "-m", "mnist_lightning", "fit", "--config", name, "--print_config"],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert "MultilayerPerceptron" in done.stdout


def test_tests_of_the_source_distribution_pass(checkout: Path, tmp_path: Path) -> None:
    extracted = tmp_path / "extracted"
    with tarfile.open(_build(checkout, "sdist")) as archive:
        archive.extractall(extracted, filter="data")
    (folder,) = extracted.iterdir()
    environment = os.environ | {"PYTHONPATH": str(folder)}
    tests = ["tests/cli/test_mistakes.py", "tests/data/test_loader.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-2000:]
