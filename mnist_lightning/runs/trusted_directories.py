"""Remember the directories in which this user has used their own classes.

Classes that a signed run names are imported from the working directory only if it is one of these:
a signed run can be copied beside somebody else's `net.py`. See `docs/decisions/trust.md`.
"""

import json
from contextlib import suppress
from pathlib import Path

from platformdirs import user_config_path

from mnist_lightning.errors import UserError
from mnist_lightning.files import read_bounded, write_atomically

MAX_BYTES = 1_000_000
MAX_DIRECTORIES = 1_000  # the oldest are forgotten


def is_known() -> bool:
    """Tell whether the user has used classes of their own in the working directory."""
    return str(Path.cwd()) in _read()


def remember_if(used: bool) -> None:
    """Remember the working directory, if classes of the user's own are used in it."""
    if used and not is_known():
        directories = [*_read(), str(Path.cwd())][-MAX_DIRECTORIES:]
        with suppress(OSError):  # without a place for it, runs are not signed either
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
