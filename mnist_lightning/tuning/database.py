"""Check that an SQLite file is the database of a sweep, before reading its tables.

Reading a table computes what its definition says (views, triggers, checks, generated columns), and
a journal beside it may name another file, which is deleted.
"""

import shutil
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from optuna.storages import RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from mnist_lightning.errors import UserError
from mnist_lightning.files import read_bounded

MAX_JOURNAL_BYTES = 20_000_000
MAX_JOURNAL_LINE = 100_000
LOOKS = 3  # a lock may be given back between two questions
MAX_DEFINITIONS = 500  # a sweep has 40
MAX_DATABASE_BYTES = 1_000_000_000  # a trial takes about 1 kB
# https://www.sqlite.org/fileformat.html: how a journal begins, and ends if it names a file.
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


def check_storage(where: str) -> None:
    """Refuse what is something else than the database of a sweep: a file of SQLite, or a journal.

    Raises:
        UserError: it is.
    """
    if "://" in where:
        check_database(where)
    else:
        _check_journal(Path(where))


def _check_journal(path: Path) -> None:
    if path.is_symlink():
        raise UserError(f"{path} is a link; remove it, or name where it leads to")
    # Optuna's lock is a link to the journal. It waits without end for one that leads nowhere.
    lock = path.with_name(f"{path.name}.lock")
    for _ in range(LOOKS):
        if not lock.is_symlink() or lock.exists():
            break
        time.sleep(0.1)
    else:
        raise UserError(f"{lock} is a link that leads nowhere; remove it")
    if not path.exists():
        return
    try:
        lines = read_bounded(path, MAX_JOURNAL_BYTES).splitlines()
    except OSError as error:
        raise UserError(
            f"{path} is not the journal of a sweep: {error.strerror or error}"
        ) from None
    if any(len(line) > MAX_JOURNAL_LINE for line in lines):
        raise UserError(f"{path} is not the journal of a sweep: a line is too long")


def check_database(url: str) -> None:
    """Refuse a file of SQLite that is something else than the database of a sweep.

    Raises:
        UserError: it is.
    """
    path = _path(url)
    if path is None:
        return
    for ending in ("", "-journal", "-wal", "-shm"):
        if path.with_name(f"{path.name}{ending}").is_symlink():
            raise UserError(f"{path}{ending} is a link; remove it, or name where it leads to")
    if not path.exists():
        return
    try:
        found = _definitions(path)
    except (sqlite3.Error, OSError) as error:
        raise UserError(f"{path} is not the database of a sweep, or damaged: {error}") from None
    with TemporaryDirectory() as folder:
        reference = Path(folder, "study.db")
        storage = RDBStorage(f"sqlite:///{reference}")
        storage.remove_session()
        storage.engine.dispose()
        expected = _definitions(reference)
    if others := sorted(name for name, _ in (found - expected).elements()):
        raise UserError(
            f"{path} is not the database of a sweep, or of another version of optuna: "
            f"{others[0][:80]} is not what a sweep makes; give another --name or --storage, or "
            "add --trust"
        )


def _path(url: str) -> Path | None:
    """The file that a URL names, if it is one of SQLite."""
    if not url.startswith("sqlite"):
        return None
    try:
        parsed = make_url(url)
    except ArgumentError:
        return None  # optuna explains it
    if "uri" in parsed.query or (parsed.database or "").startswith("file:"):
        raise UserError(f"--storage {url}: give the plain path of the file", status=2)
    return Path(parsed.database) if parsed.database not in (None, "", ":memory:") else None


def _definitions(path: Path) -> Counter[tuple[str, str]]:
    """The names and definitions of all that a database holds, without reading its tables."""
    if not path.is_file() or path.stat().st_size > MAX_DATABASE_BYTES:
        raise OSError(f"not a regular file of at most {MAX_DATABASE_BYTES:,} bytes")
    journal = path.with_name(f"{path.name}-journal")
    if journal.exists():
        if not journal.is_file() or journal.stat().st_size > MAX_DATABASE_BYTES:
            raise OSError(
                f"{journal.name} is not a regular file of at most {MAX_DATABASE_BYTES:,} bytes"
            )
        if journal.read_bytes().endswith(JOURNAL_MAGIC):
            raise OSError(f"{journal.name} names another file")
    try:
        return _read_definitions(path, "ro")
    except sqlite3.OperationalError:
        if not journal.exists():
            raise
    # Of a process that was killed: what it had begun is undone in a copy.
    with TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        shutil.copyfile(path, copy)
        shutil.copyfile(journal, copy.with_name(journal.name))
        return _read_definitions(copy, "rw")


def _read_definitions(path: Path, mode: str) -> Counter[tuple[str, str]]:
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True)) as opened:
        query = f"SELECT name, coalesce(sql, '') FROM sqlite_master LIMIT {MAX_DEFINITIONS}"
        rows = opened.execute(query)
        found = Counter((str(name), str(sql)) for name, sql in rows)
    if found.total() == MAX_DEFINITIONS:
        raise OSError(f"it has {MAX_DEFINITIONS} definitions or more")
    return found
