"""The command `validate`: evaluate a checkpoint, or several, on the validation set."""

from mnist_lightning.cli.test import evaluate_command


def main(arguments: list[str]) -> int:
    """Evaluate a checkpoint on the validation set."""
    return evaluate_command("validate", arguments)
