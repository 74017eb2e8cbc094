"""The command `completion`: a completion script for bash and zsh."""

import contextlib
import io
import re

from mnist_lightning.cli.main import COMMANDS, dispatch
from mnist_lightning.cli.parser import CommandParser
from mnist_lightning.errors import UserError
from mnist_lightning.text import fill_template, say


def main(arguments: list[str]) -> int:
    """Print the script."""
    description = "Print a script for shell completion of `mnist-lightning` commands."
    parser = CommandParser("completion", description, "bash > ~/.mnist-lightning.sh")
    shell_help = "source the script in ~/.bashrc or ~/.zshrc"
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh"), help=shell_help)
    shell = parser.parse_args(arguments).shell
    options = {name: options_of(name) for name in COMMANDS}
    take_runs = [name for name, command in COMMANDS.items() if "[RUN" in command.usage]
    path = "cli/completion.sh"
    say(fill_template(path, shell=shell, options=options, take_runs=take_runs), end="")
    return 0


def options_of(command: str) -> list[str]:
    """Return the options in the help of a command; [] if a package it needs is not installed."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit, UserError):
        dispatch([command, "--help"])
    return sorted(set(re.findall(r"(?<![\w.-])--[a-z][\w.]*\w", output.getvalue())))
