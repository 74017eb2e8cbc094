"""Open the storage of a sweep, if it may be trusted.

SQLite executes the definitions in a database and follows the journals beside it, and Optuna parses
every value without limits. No check covers all of this. Therefore a file is opened only if this
user created it on this machine, or adds `--trust`.
"""

from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import make_url

from mnist_lightning.errors import UserError
from mnist_lightning.runs import trusted_paths

# The files of a storage: SQLite's and the lock of Optuna's journal.
_SUFFIXES = ("", "-journal", "-wal", "-shm", ".lock")


def open_storage(url: str, trust: bool) -> BaseStorage:
    """Create a storage, or open it if it exists.

    Args:
        url: the URL of a database, or the path of a `.journal` file.
        trust: open a file that somebody else may have made.

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
        return RDBStorage(url)
    parsed = make_url(url)
    path = parsed.database or ""
    if "uri" in parsed.query or path.startswith("file:"):
        raise ValueError("expected sqlite:///PATH")
    if path not in ("", ":memory:"):
        _check_origin(Path(path), trust)
    return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})


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
