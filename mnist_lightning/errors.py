"""The exception for errors that a user can cause, the version, and the program name."""

from pathlib import Path

__version__ = "0.1.0"
PROGRAM = "python -m mnist_lightning"
PACKAGE = Path(__file__).parent
MAX_MESSAGE_CHARS = 2_000  # a file may contain names of megabytes


class UserError(Exception):
    """A mistake or a failure that is reported in one line: problem, value, fix.

    The command line prints the message without a traceback and exits with `status`:
    2 for a mistake in the command, 1 for a failure during the work.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message[:MAX_MESSAGE_CHARS])
        self.status = status


class UnsignedFiles:
    """Remembers which file without this user's signature was read last.

    Such a file may cause errors that no check expects. The message then names the file.
    """

    last: Path | None = None


unsigned_files = UnsignedFiles()
