"""The command `explain`: print the definition of a term, or list the terms of the glossary."""

import shutil
import textwrap

from rich.columns import Columns
from rich.console import Console

from mnist_lightning.cli import suggestions
from mnist_lightning.cli.parser import CommandParser
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.evaluation import glossary
from mnist_lightning.text import say

MAX_WIDTH = 100  # of a line of text


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    description = "Print the definition of a term; without a term, list all terms."
    parser = CommandParser("explain", description, "log interval")
    parser.add_argument("term", nargs="*", metavar="TERM", help="a term of one or more words")
    return parser


def main(arguments: list[str]) -> int:
    """Print the definition of a term, or list all terms."""
    term = " ".join(make_parser().parse_args(arguments).term)
    width = min(MAX_WIDTH, shutil.get_terminal_size().columns)
    if not term:
        say(list_terms(width))
        say(f"explain one: {PROGRAM} explain seed")
        return 0
    try:
        entry = glossary.find(term)
    except KeyError:
        names = [name.lower() for name in glossary.terms()]
        closest = suggestions.closest_option(term.lower(), names)
        hint = closest or f"; list all terms: {PROGRAM} explain"
        raise UserError(f"unknown term {term!r}{hint}", status=2) from None
    say(", ".join(entry.names))
    indent = "  "
    say(textwrap.fill(entry.definition, width, initial_indent=indent, subsequent_indent=indent))
    return 0


def list_terms(width: int) -> str:
    """Return the main names of all terms in alphabetical order, in columns."""
    names = sorted((entry.names[0] for entry in glossary.entries()), key=str.lower)
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    with console.capture() as capture:
        console.print(Columns(names, padding=(0, 2), column_first=True))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
