"""The command `serve`: a web page on which to draw and upload digits, and to correct them."""

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
from mnist_lightning.deployment.listener import address_of, open_socket
from mnist_lightning.deployment.responses import ModelRegistry
from mnist_lightning.deployment.server import make_app
from mnist_lightning.errors import UserError
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
        local = ip_address(listener.getsockname()[0]).is_loopback
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
        address = address_of(listener)
        served = "the pretrained network" if run.is_pretrained else run.folder
        say(f"serving {served} at {address}", flush=True)
        if models.default is None:
            say(f"no checkpoint yet; its training: {address}/watch", flush=True)
        say(f"API for programs: {address}/docs; press Ctrl-C to stop", flush=True)
        if collect is not None:
            say(f"corrected digits are saved in {collect}", flush=True)
        if tuner is not None:
            say(f"the page can fine-tune the network; new runs are in {options.root}", flush=True)
            if note := tuner.note_on_data():
                say(note, flush=True)
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
