"""The command `serve`: a web page on which to draw and upload digits, and to correct them."""

import socket
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from threading import Thread

import uvicorn

from mnist_lightning.cli.parser import CommandParser
from mnist_lightning.deployment import hosts
from mnist_lightning.deployment.connections import TimedConnection
from mnist_lightning.deployment.fine_tuning import FineTuner, Settings
from mnist_lightning.deployment.responses import ModelRegistry
from mnist_lightning.deployment.server import make_app
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.files import create_folder
from mnist_lightning.inference import import_network_class
from mnist_lightning.runs import lookup
from mnist_lightning.text import say

TEACH_HELP = "fine-tune a copy of the network on corrected digits, on this machine only"
DEFAULT_COLLECTION = Path("my_digits")  # of corrected digits, with --teach


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    description = "Serve a web page on which to draw or upload digits."
    parser = CommandParser("serve", description, "best --port 8000")
    parser.add_run()
    parser.add_argument("--host", default="127.0.0.1", help="(default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=8000, help="(default: 8000; 0: any free port)")
    collect_help = "save corrected digits in this directory, one folder per label"
    parser.add_argument("--collect", type=Path, metavar="DIR", help=collect_help)
    parser.add_argument("--teach", action="store_true", help=TEACH_HELP)
    data_help = "the data sets for --teach (default: those of the run)"
    parser.add_argument(
        "--data.data_dir", dest="data_dir", type=Path, metavar="DIR", help=data_help
    )
    host_help = "allow browsers to use this host name of this machine; repeatable"
    parser.add_argument("--allow_host", action="append", default=[], metavar="NAME", help=host_help)
    parser.add_network()
    return parser


def main(arguments: list[str]) -> int:
    """Serve until Ctrl-C."""
    return serve(make_parser().parse_args(arguments))


def serve(options: Namespace, when_ready: Callable[[str], object] | None = None) -> int:
    """Serve until Ctrl-C; call `when_ready` with the address of the page."""
    run, checkpoint = lookup.find_network(options.run, options.root)
    classes = import_network_class(options.network)
    collect = options.collect or (DEFAULT_COLLECTION if options.teach else None)
    with open_socket(options.host, options.port) as listener:
        host, port = listener.getsockname()[:2]
        local = ip_address(host).is_loopback
        if options.teach:
            _check_teaching(options, local)
        if collect is not None:
            create_folder(collect, "--collect")
        names = hosts.own_names(options.host, options.allow_host, local)
        models = ModelRegistry(run, checkpoint, options.root, classes)
        tuner = None
        if options.teach and collect is not None:
            settings = Settings(collect, options.root, options.data_dir, options.network)
            tuner = FineTuner(models, settings)
        app = make_app(models, collect, names, tuner)
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        served = "the pretrained network" if run.is_pretrained else run.folder
        say(f"serving {served} at {address}", flush=True)
        say(f"API for programs: {address}/docs; press Ctrl-C to stop", flush=True)
        if collect is not None:
            say(f"corrected digits are saved in {collect}", flush=True)
        if tuner is not None:
            say(f"the page can fine-tune the network; new runs are in {options.root}", flush=True)
        # Uvicorn's warnings are about requests: a client could fill the terminal with them.
        config = uvicorn.Config(
            app, http=TimedConnection, ws="none", log_level="error", access_log=False
        )
        if when_ready is not None:  # the socket already accepts connections
            Thread(target=when_ready, args=(address,), daemon=True).start()  # it may wait
        with suppress(KeyboardInterrupt):  # the usual way to stop the server
            uvicorn.Server(config).run(sockets=[listener])
        say("stopped")
    return 0


def _check_teaching(options: Namespace, local: bool) -> None:
    """Check that only this machine can start a training.

    Raises:
        UserError: other machines may reach the server.
    """
    problem = "" if local else f"--host {options.host} lets other machines connect"
    if options.allow_host:
        problem = f"--allow_host {options.allow_host[0]} lets browsers use another name"
    if problem:
        fix = "--teach starts trainings and needs --host 127.0.0.1 without --allow_host"
        raise UserError(f"{problem}; {fix}", status=2)


def open_socket(host: str, port: int) -> socket.socket:
    """Listen at an address; port 0 is any free port.

    Raises:
        UserError: the port is invalid or in use, or the host is not this machine.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port}: a port is a number from 0 to 65535", status=2)
    if not host:
        raise UserError("--host is empty; give 127.0.0.1 for this machine, 0.0.0.0 for all", 2)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=128)
        # Connections inherit it. Without it, the second part of a response waits 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        fix = f"try another host or port: {PROGRAM} serve --host 127.0.0.1 --port 8080"
        raise UserError(f"cannot serve at {host}, port {port}: {reason}; {fix}") from None
