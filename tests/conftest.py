"""Shared fixtures: commands in an empty directory, trained runs, MNIST, and a browser."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser, expect, sync_playwright

from mnist_lightning.cli.main import main
from mnist_lightning.runs.run_directory import Run

# A small data set of scikit-learn: a run takes seconds.
# The row of an epoch in the output of `fit`.
EPOCH_ROW = re.compile(r"^ +\d+(/\d+)? +\d+\.\d{4} ", re.MULTILINE)
DIGITS = ["--data.dataset", "digits"]


@dataclass
class Result:
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str


Command = Callable[..., Result]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in `e2e` as slow, and those with fixtures that run commands.

    The tests of the documents run first, because they take longest.
    """
    items.sort(key=lambda item: item.path.name != "test_documents.py")
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker("slow")
        if {"command", "browser"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("commands")


# The same examples on every machine, of any speed.
settings.register_profile(
    "suite", derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _torch_settings() -> None:
    """Seed each test; use one thread, because tests run in parallel."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _separate_user_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use separate keys and caches in the tests, and in the processes that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Return the function that runs a command in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "path", sys.path.copy())

    def run_command(*arguments: str) -> Result:
        capsys.readouterr()
        status = main(arguments)
        output = capsys.readouterr()
        return Result(status, output.out, output.err)

    yield run_command
    # The next test may have another module of the same name.
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(f"{tmp_path}/"):
            del sys.modules[name]


AddRun = Callable[..., None]


@pytest.fixture(scope="session")
def _train_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], Path]:
    """Return the function that trains in a new directory, once per list of options."""
    folders: dict[tuple[str, ...], Path] = {}

    def train(options: tuple[str, ...]) -> Path:
        if options not in folders:
            folder = tmp_path_factory.mktemp("trained")
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                assert main(["fit", *options]) == 0
            folders[options] = folder / "lightning_logs" / "version_0"
        return folders[options]

    return train


@pytest.fixture
def add_run(command: Command, _train_once: Callable[[tuple[str, ...]], Path]) -> AddRun:
    """Return the function that adds a copy of a trained run to the directory of the command."""

    def copy(*options: str) -> None:
        root = Path("lightning_logs")
        shutil.copytree(_train_once(options), root / f"version_{len(list(root.glob('*')))}")

    return copy


@pytest.fixture
def run_0(tmp_path: Path) -> Run:
    """The first run in the directory of the command."""
    return Run(tmp_path / "lightning_logs" / "version_0")


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder of the real MNIST."""
    folder = os.environ.get("MNIST_LIGHTNING_TEST_DATA")
    if folder is None:
        pytest.skip("MNIST_LIGHTNING_TEST_DATA names no folder with the real MNIST")
    return Path(folder)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    executable = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if executable is None:
        pytest.skip("there is no Chromium on this machine")
    expect.set_options(timeout=60_000)  # ms; a busy machine takes more than Playwright's 5 s
    options = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=options)
        yield chromium
        chromium.close()
