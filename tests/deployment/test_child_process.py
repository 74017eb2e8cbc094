"""Child processes of the server: their ends, their errors and their priority."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Timer

import psutil
import pytest

from mnist_lightning import posix
from mnist_lightning.deployment.child_process import CancelledError, ChildFailedError, run_child
from tests.processes import child_process

SLEEP = "import time, sys; print(sys.argv[1], flush=True); time.sleep(60)"


def run(statement: str, *arguments: str, cancelled: Event | None = None) -> bytes:
    return run_child(statement, arguments, cancelled or Event(), lambda: None)


def test_the_output_of_a_child_is_returned() -> None:
    assert run("import sys; print(sys.argv[1:])", "a", "b") == b"['a', 'b']\n"


def test_a_failure_is_reported_with_the_last_line() -> None:
    fail = "import sys; print('earlier', file=sys.stderr); "
    with pytest.raises(ChildFailedError) as raised:
        run(f"{fail}sys.exit('mnist-lightning: error: no digits; draw one')")
    assert str(raised.value) == "no digits; draw one"
    with pytest.raises(ChildFailedError, match=r"^no output$"):
        run("import os; os._exit(3)")
    with pytest.raises(ChildFailedError, match="ended by SIGKILL"):
        run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")


def test_a_long_line_of_a_child_is_shortened() -> None:
    with pytest.raises(ChildFailedError) as raised:
        run("import sys; sys.exit('x' * 1_000_000)")
    assert len(str(raised.value)) <= 500


def test_a_cancelled_child_has_ended() -> None:
    cancelled = Event()
    Timer(1.0, cancelled.set).start()
    started = time.monotonic()
    with pytest.raises(CancelledError):
        run(SLEEP, "unique-cancelled", cancelled=cancelled)
    assert time.monotonic() - started < 10
    assert find_processes("unique-cancelled") == []


@pytest.mark.slow
def test_a_child_that_ignores_the_end_of_its_parent_is_killed() -> None:
    cancelled = Event()
    Timer(1.0, cancelled.set).start()
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    with pytest.raises(CancelledError):
        run(ignore + SLEEP, "unique-stubborn", cancelled=cancelled)
    assert find_processes("unique-stubborn") == []


def test_a_child_yields_the_processor() -> None:
    nice = int(run("import os; print(os.nice(0))"))
    assert nice == min(19, os.nice(0) + posix.NICENESS)


PARENT = """
from threading import Event
from mnist_lightning.deployment.child_process import run_child
run_child({statement!r}, [{name!r}], Event(), lambda: None)
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_child_ends_with_its_parent(signum: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT.format(statement=SLEEP, name=str(tmp_path))]
    with child_process(command, stderr=subprocess.DEVNULL) as parent:
        children = wait_for(lambda: find_processes(str(tmp_path)))
        parent.send_signal(signum)
        parent.wait(10)
        _, alive = psutil.wait_procs(children, timeout=10)
    assert children
    assert alive == []


def find_processes(argument: str) -> list[psutil.Process]:
    """Return the processes with this argument."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if argument in process.cmdline():
                found.append(process)
    return found


def wait_for(find: object, seconds: float = 20) -> list[psutil.Process]:
    """Call a function until it returns something."""
    assert callable(find)
    end = time.monotonic() + seconds
    while not (found := find()) and time.monotonic() < end:
        time.sleep(0.05)
    return list(found)


def test_a_child_imports_nothing_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numbers.py").write_text("print('taken over')")
    monkeypatch.chdir(tmp_path)
    assert run("import numbers") == b""
