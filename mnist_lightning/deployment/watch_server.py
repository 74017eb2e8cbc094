"""The server of `fit --watch`: a process of its own, which shows the runs of a command.

A thread of `fit` would compete with the training for Python's interpreter lock. This process
imports neither torch nor Lightning, and ends soon after `fit`, also if `fit` is killed: then its
standard input ends. `fit` writes a line of JSON to it for each further run: its directory.
"""

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import uvicorn
from fastapi import FastAPI
from fastapi.responses import RedirectResponse, Response

from mnist_lightning.deployment import hosts, watch_routes
from mnist_lightning.deployment.connections import TimedConnection
from mnist_lightning.deployment.guard import Guard, handle_errors
from mnist_lightning.deployment.watched_runs import WatchedRuns
from mnist_lightning.errors import PACKAGE, __version__
from mnist_lightning.runs.run_directory import Run

# The files of the page: their addresses and types.
FILES = {
    "watch.html": ("/watch", "text/html"),
    "watch.css": ("/watch.css", "text/css"),
    "page.css": ("/page.css", "text/css"),
    "watch.js": ("/watch.js", "text/javascript"),
    "watch_charts.js": ("/watch_charts.js", "text/javascript"),
    "watch_snapshot.js": ("/watch_snapshot.js", "text/javascript"),
}
SECONDS_AFTER_END = 3.0  # for pages that still have to get the final state


def serve(run: str, root: str, descriptor: int, expects_page: bool) -> None:
    """Serve until the standard input ends. It is the main function of the process.

    Args:
        run: the directory of the first run.
        root: the directory of all runs.
        descriptor: of the listening socket, which `fit` has opened.
        expects_page: whether `fit` opens the page in a browser.
    """
    runs = WatchedRuns(Run(Path(run)), Path(root), expects_more=True)
    listener = socket.socket(fileno=descriptor)
    names = hosts.own_names(listener.getsockname()[0], (), local=True)
    app = make_app(runs, names)
    config = uvicorn.Config(
        app,
        http=TimedConnection,
        ws="none",
        log_level="error",
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    Thread(target=_follow_command, args=(runs, server, expects_page), daemon=True).start()
    server.run(sockets=[listener])


def _follow_command(runs: WatchedRuns, server: uvicorn.Server, expects_page: bool) -> None:
    """Show the run that is trained; end the server soon after the command."""
    for line in sys.stdin:
        runs.run = Run(Path(json.loads(line)))
    runs.expects_more = False
    runs.wait_for_pages(SECONDS_AFTER_END, expects_page)
    server.should_exit = True


def make_app(runs: WatchedRuns, names: frozenset[str]) -> FastAPI:
    """Make the application, with only the page `/watch`; `names` are those of the server."""
    app = FastAPI(title="mnist_lightning", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, names=names)
    handle_errors(app)
    watch_routes.add(app, runs, can_draw=False)
    folder = PACKAGE / "deployment" / "static"
    for name, (address, media_type) in FILES.items():
        endpoint = _static_endpoint((folder / name).read_bytes(), media_type)
        app.add_api_route(address, endpoint, include_in_schema=False)
    app.add_api_route("/", lambda: RedirectResponse("/watch"), include_in_schema=False)
    return app


def _static_endpoint(content: bytes, media_type: str) -> Callable[[], Response]:
    return lambda: Response(content, media_type=media_type)
