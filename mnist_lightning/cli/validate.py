"""The command `validate`: evaluate a checkpoint, or several, on the validation set."""

from mnist_lightning.cli import test
from mnist_lightning.cli.lightning_cli import ExperimentParser


def make_parser() -> ExperimentParser:
    """Return the parser of the command."""
    return test.make_parser("validate")


def main(arguments: list[str]) -> int:
    """Evaluate a checkpoint on the validation set."""
    return test.evaluate_command("validate", arguments)
