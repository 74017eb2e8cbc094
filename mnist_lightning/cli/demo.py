"""The command `demo`: draw a digit, and let the pretrained network read it."""

import webbrowser
from argparse import Namespace

from mnist_lightning.cli import serve
from mnist_lightning.cli.parser import CommandParser, runs_root
from mnist_lightning.runs.lookup import PRETRAINED


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    description = "Draw a digit in the browser, and let the pretrained network read it."
    parser = CommandParser("demo", description, "")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    port_help = "(default: any free port)"
    parser.add_argument("--port", type=int, default=0, help=port_help)
    parser.add_argument("--teach", action="store_true", help=serve.TEACH_HELP)
    return parser


def main(arguments: list[str]) -> int:
    """Serve the page with the pretrained network, and open it in the browser."""
    options = make_parser().parse_args(arguments)
    served = Namespace(
        run=PRETRAINED,
        root=runs_root(),
        network=None,
        collect=None,
        teach=options.teach,
        data_dir=None,
        host="127.0.0.1",
        port=options.port,
        allow_host=[],
    )
    return serve.serve(served, None if options.no_browser else webbrowser.open)
