"""The command `completion`: a completion script for bash and zsh."""

from mnist_lightning.cli.main import COMMANDS
from mnist_lightning.cli.options import completed_options
from mnist_lightning.cli.parser import CommandParser
from mnist_lightning.text import fill_template, say


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    description = "Print a script for shell completion of `mnist-lightning` commands."
    parser = CommandParser("completion", description, "bash > ~/.mnist-lightning.sh")
    shell_help = "source the script in ~/.bashrc or ~/.zshrc"
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh"), help=shell_help)
    return parser


def main(arguments: list[str]) -> int:
    """Print the script."""
    shell = make_parser().parse_args(arguments).shell
    options = {name: completed_options(name) for name in COMMANDS}
    take_runs = [name for name, command in COMMANDS.items() if "[RUN" in command.usage]
    path = "cli/completion.sh"
    say(fill_template(path, shell=shell, options=options, take_runs=take_runs), end="")
    return 0
