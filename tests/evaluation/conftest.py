"""Fixtures of the tests of reports."""

import pytest

from tests.conftest import DIGITS, AddRun, Command


@pytest.fixture
def trained_cli(command: Command, add_run: AddRun) -> Command:
    """A command in a directory with a run of two epochs."""
    add_run(*DIGITS, "--trainer.max_epochs", "2")
    return command
