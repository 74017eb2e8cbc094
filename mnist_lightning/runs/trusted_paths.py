"""Remember the paths that this user has trusted, in the user's configuration directory.

These are the working directories in which a command named the user's own classes (a signed run can
be copied beside another person's `net.py`), and the storages of the user's own sweeps. See
`docs/decisions/trust.md`.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from platformdirs import user_config_path


def is_known(path: Path) -> bool:
    """Return whether a path was remembered."""
    return _record(path).is_file()


def remember(path: Path) -> None:
    """Remember a path, if the configuration directory can be written to."""
    with suppress(OSError):  # if it cannot be stored, runs cannot be signed either
        _record(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _record(path).write_bytes(os.fsencode(path.resolve()))


def _record(path: Path) -> Path:
    """Return the file that exists if a path is known; it contains the path."""
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    return user_config_path("mnist_lightning") / "trusted_paths" / name
