"""The exception for what a user can cause, the version, and the name of the program."""

__version__ = "0.1.0"
PROGRAM = "python -m mnist_lightning"


class UserError(Exception):
    """A mistake or a failure to tell in one line: what was wrong, what was found, what to do.

    The command line prints the message without a traceback and ends with `status`:
    2 for a mistake in the command, 1 for a failure at work.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status
