"""Open the storage of a sweep, if it may be trusted.

SQLite executes the definitions in a database and follows the journals beside it, and Optuna parses
every value without limits. No check covers all of this. Therefore a file is opened only if this
user created it on this machine, or adds `--trust`.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import IntegrityError, ProgrammingError

from mnist_lightning.errors import UserError
from mnist_lightning.runs import trusted_paths
from mnist_lightning.tuning.database_url import hide_password, parse_url
from mnist_lightning.tuning.reconnecting_storage import ReconnectingStorage

# The files of a storage: SQLite's and the lock of Optuna's journal.
_SUFFIXES = ("", "-journal", "-wal", "-shm", ".lock")

# Limits in seconds of PostgreSQL's client, which may otherwise wait for two hours for an answer of
# a machine that is switched off.
_POSTGRESQL_LIMITS = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # in ms
}
_OPENING_TRIES = 5


def open_storage(url: str, trust: bool, stop: Event, report: Callable[[str], None]) -> BaseStorage:
    """Create a storage, or open it if it exists.

    Args:
        url: the URL of a database, or the path of a `.journal` file.
        trust: open a file that somebody else may have made.
        stop: set to end the sweep; see `ReconnectingStorage`.
        report: called with a line if a database server is not reachable for some time.

    Raises:
        UserError: somebody else may have made the file.
        Exception: Optuna cannot open it; each database has its own classes of errors.
    """
    if "://" not in url:
        if not url.endswith(".journal"):
            raise ValueError("expected a URL such as sqlite:///study.db, or a file FILE.journal")
        _check_origin(Path(url), trust)
        # The lock is a symbolic link, which would be broken with a relative path.
        return JournalStorage(JournalFileBackend(str(Path(url).absolute())))
    if not url.startswith("sqlite"):
        return ReconnectingStorage(_open_server(parse_url(url)), hide_password(url), stop, report)
    parsed = make_url(url)
    path = parsed.database or ""
    if "uri" in parsed.query or path.startswith("file:"):
        raise ValueError("expected sqlite:///PATH")
    if path not in ("", ":memory:"):
        _check_origin(Path(path), trust)
    return RDBStorage(_escape(url), engine_kwargs={"connect_args": {"timeout": 60}})


def _open_server(url: URL) -> RDBStorage:
    """Open the storage in a database server."""
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.drivername in ("postgresql+psycopg", "postgresql+psycopg2"):
        limits = {name: each for name, each in _POSTGRESQL_LIMITS.items() if name not in url.query}
        options["connect_args"] = limits
    text = _escape(url.render_as_string(hide_password=False))
    for _ in range(_OPENING_TRIES - 1):
        # Sweeps that start at the same time create the same tables, and all but one fail.
        with suppress(IntegrityError, ProgrammingError):
            return RDBStorage(text, engine_kwargs=options)
        time.sleep(1)
    return RDBStorage(text, engine_kwargs=options)


def _escape(url: str) -> str:
    """Return a URL for Optuna, which replaces names in braces."""
    return url.replace("{", "{{").replace("}", "}}")


def _check_origin(path: Path, trust: bool) -> None:
    """Check that this user created a file, or is about to create it."""
    files = [path.with_name(path.name + suffix) for suffix in _SUFFIXES]
    existing = [file for file in files if file.is_symlink() or file.exists()]
    if existing and not trust and not trusted_paths.is_known(path):
        raise UserError(
            f"{existing[0]} was not made by your sweeps on this machine. Give another --name or "
            "--storage; or add --trust, if you trust the person who made it"
        )
    trusted_paths.remember(path)
