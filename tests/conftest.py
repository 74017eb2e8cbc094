"""What the tests share: a command line to type on, real MNIST where it is, small trained runs."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, sync_playwright

from mnist_lightning.cli.main import main
from mnist_lightning.runs.run_directory import Run

# A run of seconds on real digits that come with scikit-learn.
DIGITS = ["--data.dataset", "digits"]


@dataclass
class Result:
    """What a command printed, and how it ended."""

    status: int
    out: str
    err: str


Command = Callable[..., Result]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that run whole commands, and those of `e2e`, which take long.

    The commands of the documents come first: one of these tests takes nine minutes.
    """
    items.sort(key=lambda item: item.path.name != "test_documents.py")
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker("slow")
        if {"command", "browser"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("commands")


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    """Tests run beside each other; small networks gain nothing from more."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_signing_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sign the runs of the tests with a key of their own, also in the processes they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Type a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def type_in(*arguments: str) -> Result:
        capsys.readouterr()
        status = main(arguments)
        printed = capsys.readouterr()
        return Result(status, printed.out, printed.err)

    return type_in


AddRun = Callable[..., None]


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], Path]:
    """Return the function that runs `fit` in a folder of its own, once for the same options."""
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
def add_run(command: Command, _trained: Callable[[tuple[str, ...]], Path]) -> AddRun:
    """Return the function that adds a copy of a trained run to the directory of the command."""

    def copy(*options: str) -> None:
        root = Path("lightning_logs")
        shutil.copytree(_trained(options), root / f"version_{len(list(root.glob('*')))}")

    return copy


@pytest.fixture
def run_0(tmp_path: Path) -> Run:
    """The first run that a command makes."""
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
    """A real browser, without a window."""
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if found is None:
        pytest.skip("there is no Chromium on this machine")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=quiet)
        yield chromium
        chromium.close()
