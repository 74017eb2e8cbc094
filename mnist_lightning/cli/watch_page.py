"""The option `--watch`: show the training in the browser, with a server in another process."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import webbrowser
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, Self

from mnist_lightning import distributed, posix
from mnist_lightning.cli.parser import CommandParser
from mnist_lightning.deployment.listener import address_of, open_socket
from mnist_lightning.errors import UserError
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import say

SECONDS_TO_END = 6  # the server ends within four
MAX_REASON_CHARS = 300
# -I: import modules from the parent's path, not from the working directory.
_COMMAND = "import json, sys; given = json.loads(sys.argv[1]); sys.path[:] = given.pop('path'); "
_COMMAND += "from mnist_lightning.deployment.watch_server import serve; serve(**given)"


def add_watch_option(parser: CommandParser) -> None:
    """Add the option."""
    text = "show the training in the browser: curves, filters, a digit, mistakes"
    parser.add_argument("--watch", action="store_true", help=text)


class WatchPage:
    """The page of a command that trains one or several runs; it never makes a run fail.

    Args:
        is_wanted: whether the command has the option.
    """

    def __init__(self, is_wanted: bool) -> None:
        self._is_wanted = is_wanted
        self._server: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def follow(self, run: Run | None, root: Path) -> None:
        """Show a run from now on; start the server for the first one.

        Args:
            run: the run; None if nothing is saved.
            root: the directory of all runs.
        """
        if not self._is_wanted or not distributed.is_rank_zero():
            return
        try:
            if run is None:
                raise UserError("this command saves nothing")
            if self._server is None:
                self._start(run, root)
            else:
                self._send(self._server, run)
        except (OSError, UserError) as error:
            self._is_wanted = False
            reason = getattr(error, "strerror", None) or error
            say(f"--watch shows nothing: {reason}; the training continues", file=sys.stderr)

    def _start(self, run: Run, root: Path) -> None:
        opens_browser = _has_display()
        with open_socket("127.0.0.1", 0) as listener:
            self._server = self._start_server(listener, run, root, opens_browser)
            address = f"{address_of(listener)}/watch"
        say(f"watch the training: {address}", flush=True)
        if opens_browser:  # in a thread, because it may wait for the browser
            Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    def _start_server(
        self, listener: socket.socket, run: Run, root: Path, opens_browser: bool
    ) -> subprocess.Popen[bytes]:
        given = {
            "path": [str(folder) for folder in sys.path],
            "run": str(run.folder.resolve()),
            "root": str(root.resolve()),
            "descriptor": listener.fileno(),
            "expects_page": opens_browser,
        }
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        command = [sys.executable, "-I", "-c", _COMMAND, json.dumps(given)]
        return posix.start_dependent_process(
            command,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            pass_fds=[listener.fileno()],
        )

    def _send(self, server: subprocess.Popen[bytes], run: Run) -> None:
        """Let the page show the next run."""
        if server.poll() is not None:
            raise UserError(f"its server has ended: {self._last_error()}")
        assert server.stdin is not None
        server.stdin.write(json.dumps(str(run.folder.resolve())).encode() + b"\n")

    def close(self) -> None:
        """End the server as soon as the page has the final state; report it if it ended before."""
        try:
            if self._server is not None:
                self._end(self._server)
        finally:
            if self._errors is not None:
                self._errors.close()

    def _end(self, server: subprocess.Popen[bytes]) -> None:
        if server.poll() is not None and self._is_wanted:
            say(f"the server of --watch has ended early: {self._last_error()}", file=sys.stderr)
        assert server.stdin is not None
        server.stdin.close()
        try:
            with suppress(subprocess.TimeoutExpired):
                server.wait(SECONDS_TO_END)
        finally:  # also after Ctrl-C
            if server.poll() is None:
                server.kill()
                server.wait()

    def _last_error(self) -> str:
        """Return the last line that the server has printed on its standard error."""
        assert self._errors is not None
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:MAX_REASON_CHARS] if lines else "it printed no reason"


def _has_display() -> bool:
    """Return whether a browser can open a window; without it, one may start in the terminal."""
    named = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return sys.platform == "darwin" or named
