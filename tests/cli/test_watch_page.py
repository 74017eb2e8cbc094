"""The option `--watch`: its server follows the run and ends with it, whatever happens to it."""

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, ClassVar

import httpx
import psutil
import pytest

from mnist_lightning.cli import watch_page
from mnist_lightning.errors import UserError
from tests import processes
from tests.conftest import DIGITS, Command

WATCH = [*DIGITS, "--watch", "--trainer.limit_test_batches", "1"]
SHORT = ["--trainer.max_epochs", "2"]
LONG = ["--trainer.max_epochs", "5000"]
ADDRESS = re.compile(r"^watch the training: (http://127\.0\.0\.1:\d+)/watch$", re.MULTILINE)
SECONDS = 60.0


class WatchedFit:
    """A command in a process, and its server.

    Args:
        folder: its working directory.
        arguments: of the command.
    """

    started: ClassVar[list[ForkServerProcess]] = []

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        printed = folder / "printed"
        self._start = printed.stat().st_size if printed.exists() else 0
        self.process: ForkServerProcess = processes.start(
            [*arguments], folder, environment={"DISPLAY": "", **environment}
        )
        self.started.append(self.process)
        self.address = self._wait_for_address()
        (self.server,) = psutil.Process(self.process.pid).children()

    @property
    def printed(self) -> str:
        """What the command has printed."""
        path = self.folder / "printed"
        return path.read_text()[self._start :] if path.exists() else ""

    def _wait_for_address(self) -> str:
        end = time.monotonic() + SECONDS
        while (match := ADDRESS.search(self.printed)) is None:
            assert self.process.is_alive(), self.printed
            assert time.monotonic() < end, self.printed
            time.sleep(0.05)
        return match[1]

    def ask(self, **query: Any) -> dict[str, Any]:
        """Ask for the progress, as the page does."""
        query = {"page": "test", **query}
        response = httpx.get(f"{self.address}/api/watch", params=query, timeout=SECONDS)
        answer: dict[str, Any] = response.raise_for_status().json()
        return answer

    def ask_until(self, condition: str, **query: Any) -> dict[str, Any]:
        """Ask until an expression of `answer` is true."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            answer = self.ask(**query)
            if eval(condition, {"answer": answer}):
                return answer
            time.sleep(0.05)
        raise AssertionError(answer)

    def assert_ended(self) -> None:
        """Check that the server ends, within seconds."""
        _, alive = psutil.wait_procs([self.server], timeout=5)
        assert not alive


@pytest.fixture(autouse=True)
def _end_commands() -> Iterator[None]:
    """End the commands that a failed test has left; their servers end with them."""
    yield
    while WatchedFit.started:
        WatchedFit.started.pop().kill()


pytestmark = pytest.mark.slow


def test_the_page_follows_the_run_to_its_end(tmp_path: Path) -> None:
    fit = WatchedFit(tmp_path, "fit", *WATCH, *SHORT)
    answer = fit.ask_until("answer['last_snapshot'] >= 0")
    assert answer["state"] in ("starting", "running")
    assert (answer["run"], answer["max_epochs"]) == ("version_0", 2)
    answer = fit.ask_until("not answer['follow']")
    assert processes.wait_for_exit(fit.process) == 0
    fit.assert_ended()
    assert (answer["state"], answer["last_epoch"], answer["last_snapshot"]) == ("finished", 2, 2)
    assert len(ADDRESS.findall(fit.printed)) == 1
    assert "early" not in fit.printed
    with pytest.raises(httpx.ConnectError):
        fit.ask()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_server_ends_if_fit_is_killed(tmp_path: Path, workers: int) -> None:
    fit = WatchedFit(tmp_path, "fit", *WATCH, *LONG, "--data.num_workers", str(workers))
    fit.ask_until("answer['last_epoch'] >= 1")
    os.kill(fit.process.pid or 0, signal.SIGKILL)
    answer = fit.ask_until("not answer['follow']")
    assert answer["state"] == "interrupted"
    fit.assert_ended()


def test_ctrl_c_ends_the_run_and_the_page_shows_it(tmp_path: Path) -> None:
    fit = WatchedFit(tmp_path, "fit", *WATCH, *LONG)
    fit.ask_until("answer['last_epoch'] >= 1")
    os.killpg(fit.process.pid or 0, signal.SIGINT)  # as a terminal sends it, to the whole group
    answer = fit.ask_until("not answer['follow']")
    assert answer["state"] == "interrupted"
    assert processes.wait_for_exit(fit.process) == 130
    fit.assert_ended()
    assert "Interrupted. Saved through" in fit.printed
    assert "early" not in fit.printed
    assert "Traceback" not in fit.printed
    resumed = WatchedFit(tmp_path, "resume", "0", "--watch")
    after = resumed.ask_until(f"answer['last_epoch'] > {answer['last_epoch']}")
    assert (after["run"], after["state"]) == ("version_0", "running")


def test_one_page_follows_the_runs_of_several_seeds(tmp_path: Path) -> None:
    fit = WatchedFit(tmp_path, "fit", *WATCH, *SHORT, "--seeds", "1,2")
    runs = []
    while (answer := fit.ask())["follow"]:
        runs.append(answer["run"])
        time.sleep(0.05)
    assert list(dict.fromkeys(runs)) == ["version_0", "version_1"]
    assert (answer["run"], answer["state"]) == ("version_1", "finished")
    assert processes.wait_for_exit(fit.process) == 0
    fit.assert_ended()
    assert len(ADDRESS.findall(fit.printed)) == 1


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system has no /proc")
def test_the_server_loads_neither_torch_nor_numpy(tmp_path: Path) -> None:
    fit = WatchedFit(tmp_path, "fit", *WATCH, *LONG)
    fit.ask_until("answer['last_epoch'] >= 1")
    maps = Path(f"/proc/{fit.server.pid}/maps").read_text()
    assert "pydantic" in maps
    assert "torch" not in maps
    assert "numpy" not in maps


def test_the_browser_opens_the_page_if_there_is_a_display(tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    process = processes.start(
        ["fit", *WATCH, *SHORT], tmp_path, environment={"DISPLAY": ":9", "BROWSER": str(browser)}
    )
    assert processes.wait_for_exit(process) == 0
    match = ADDRESS.search(processes.read_output(tmp_path))
    assert match is not None
    assert (tmp_path / "opened").read_text().strip() == f"{match[1]}/watch"


def test_a_page_that_cannot_be_served_does_not_end_the_run(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(host: str, port: int) -> None:
        raise UserError(f"cannot serve at {host}: too many open files")

    monkeypatch.delenv("DISPLAY", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(watch_page, "open_socket", fail)
        result = command("fit", *WATCH, *SHORT)
    assert result.status == 0
    message = "--watch shows nothing: cannot serve at 127.0.0.1: too many open files"
    assert result.err == f"{message}; the training continues\n"
    monkeypatch.setattr(watch_page, "_COMMAND", "raise SystemExit('no fastapi')")
    result = command("fit", *WATCH, *SHORT, "--trainer.max_epochs", "20")
    assert result.status == 0
    assert result.err == "the server of --watch has ended early: no fastapi\n"
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    result = command("fit", *WATCH, *SHORT)
    assert result.status == 0
    assert "--watch shows nothing: No such file or directory; the training continues" in result.err


def test_a_command_that_saves_nothing_has_no_page(command: Command) -> None:
    result = command("fit", *WATCH, "--trainer.fast_dev_run", "1")
    assert result.status == 0
    assert "--watch shows nothing: this command saves nothing" in result.err
