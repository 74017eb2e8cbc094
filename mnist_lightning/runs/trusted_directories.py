"""Remember the directories in which this user has used their own classes.

The classes of a signed run are imported from the working directory only if it is one of these
directories: a signed run can be copied beside another person's `net.py`. See
`docs/decisions/trust.md`.
"""

import json
from contextlib import suppress
from pathlib import Path

from platformdirs import user_config_path

from mnist_lightning.errors import UserError
from mnist_lightning.files import read_bounded, write_atomically

MAX_BYTES = 1_000_000
MAX_DIRECTORIES = 1_000  # the oldest are removed


def is_known() -> bool:
    """Return whether the user has used their own classes in the working directory."""
    return str(Path.cwd()) in _read()


def remember_if(used: bool) -> None:
    """Remember the working directory if the user's own classes are used in it."""
    if used and not is_known():
        directories = [*_read(), str(Path.cwd())][-MAX_DIRECTORIES:]
        with suppress(OSError):  # if it cannot be stored, runs cannot be signed either
            _path().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(json.dumps(directories, indent=1).encode(), _path())


def _path() -> Path:
    return user_config_path("mnist_lightning") / "directories.json"


def _read() -> list[str]:
    try:
        directories = json.loads(read_bounded(_path(), MAX_BYTES))
    except (OSError, ValueError, UserError):
        return []
    return directories if isinstance(directories, list) else []
