"""Servers in separate processes, on the loopback interface."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from py_mini_racer import MiniRacer

from mnist_lightning.cli.main import main
from tests.conftest import DIGITS
from tests.deployment import javascript
from tests.processes import child_process


@pytest.fixture(scope="module")
def engine() -> MiniRacer:
    """Return a JavaScript engine with the scripts that read images."""
    return javascript.start()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with two runs."""
    folder = tmp_path_factory.mktemp("home")
    few = ["--trainer.max_epochs", "2", "--dashboards", "none"]
    for network in ("ClassicCNN", "DigitNet"):
        place = ["--trainer.default_root_dir", str(folder)]
        assert main(["fit", *DIGITS, "--model.network", network, *few, *place]) == 0
    return folder


def serving(folder: Path, *arguments: str) -> Iterator[str]:
    """Start a server in a process and yield its address; stop it at the end."""
    command = [sys.executable, "-m", "mnist_lightning", "serve", "--port", "0", *arguments]
    with child_process(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as server:
        assert server.stdout is not None
        first_line = server.stdout.readline()
        match = re.search(r"http://(127\.0\.0\.1|0\.0\.0\.0):\d+", first_line)
        assert match is not None, first_line
        try:
            yield match[0]
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)


@pytest.fixture(scope="module")
def pretrained_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the pretrained network, which keeps corrections."""
    yield from serving(tmp_path_factory.mktemp("home"), "pretrained", "--collect", "kept")


@pytest.fixture(scope="module")
def client(pretrained_address: str) -> Iterator[httpx.Client]:
    """A client of this server."""
    with httpx.Client(base_url=pretrained_address, timeout=60) as client:
        yield client
