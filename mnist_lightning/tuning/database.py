"""Check that an SQLite file is the database of a sweep, before reading its tables.

Reading a table executes its definition (views, triggers, checks, generated columns). A journal
beside the database may name another file, which SQLite then deletes.
"""

import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from optuna.storages import RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from mnist_lightning.errors import UserError
from mnist_lightning.files import read_bounded

MAX_JOURNAL_BYTES = 20_000_000
MAX_VALUE_BYTES = 100_000  # of a value in the database, or of a line of the journal
MAX_ROWS = 200_000  # of all tables, or lines of the journal; a trial of ten epochs has 20
MAX_LOCK_CHECKS = 3  # the lock may be released between the two tests of one check
MAX_DEFINITIONS = 500  # a sweep has 40
MAX_DATABASE_BYTES = 1_000_000_000  # a trial takes about 1 kB
# https://www.sqlite.org/fileformat.html: the first bytes of a journal, and the last ones if it
# names a file.
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


def check_storage(storage: str) -> None:
    """Check that a storage, an SQLite file or a journal, is that of a sweep.

    Raises:
        UserError: it is not.
    """
    if "://" in storage:
        check_database(storage)
    else:
        _check_journal(Path(storage))


def _check_journal(path: Path) -> None:
    if path.is_symlink():
        raise UserError(f"{path} is a link: remove it, or give the path of its target.")
    # Optuna's lock is a link to the journal. Optuna may wait forever for another link.
    lock = path.with_name(f"{path.name}.lock")
    for _ in range(MAX_LOCK_CHECKS):
        if not lock.is_symlink() or lock.resolve() == path.resolve():
            break
        time.sleep(0.1)
    else:
        raise UserError(f"{lock} is a link, but not to {path.name}: remove it.")
    if not path.exists():
        return
    try:
        lines = read_bounded(path, MAX_JOURNAL_BYTES).splitlines()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} is not the journal of a sweep: {reason}") from None
    if len(lines) > MAX_ROWS or any(len(line) > MAX_VALUE_BYTES for line in lines):
        raise UserError(f"{path} is not the journal of a sweep: it is too long, or has long lines.")


def check_database(url: str) -> None:
    """Check that an SQLite file is the database of a sweep.

    Raises:
        UserError: it is not.
    """
    path = _path(url)
    if path is None:
        return
    for suffix in ("", "-journal", "-wal", "-shm"):
        if path.with_name(f"{path.name}{suffix}").is_symlink():
            raise UserError(f"{path}{suffix} is a link: remove it, or give the path of its target.")
    if not path.exists():
        return
    with TemporaryDirectory() as folder:
        reference = Path(folder, "study.db")
        storage = RDBStorage(f"sqlite:///{reference}")
        storage.remove_session()
        storage.engine.dispose()
        with _opened(reference) as connection:
            expected = _definitions(connection)
    try:
        with _opened(path) as connection:
            unexpected = sorted(name for name, _ in _definitions(connection) - expected)
            # Reading the tables of other definitions could execute something.
            problem = None if unexpected else _problem(connection)
    except (sqlite3.Error, OSError) as error:
        raise UserError(f"{path} is not the database of a sweep, or damaged: {error}") from None
    fix = "Give another --name or --storage, or add --trust."
    if unexpected:
        problem = f"{path} is not the database of a sweep, or from another version of optuna"
        raise UserError(f"{problem}: unexpected definition {unexpected[0][:80]}. {fix}")
    if problem is not None:
        raise UserError(f"{path} is not the database of a sweep: {problem}. {fix}")


def _path(url: str) -> Path | None:
    """Return the path in an SQLite URL; None for another database."""
    if not url.startswith("sqlite"):
        return None
    try:
        parsed = make_url(url)
    except ArgumentError:
        return None  # optuna reports it
    if "uri" in parsed.query or (parsed.database or "").startswith("file:"):
        raise UserError(f"Invalid --storage {url}: expected sqlite:///PATH.", status=2)
    return Path(parsed.database) if parsed.database not in (None, "", ":memory:") else None


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database for reading."""
    journal = path.with_name(f"{path.name}-journal")
    for file in (path, journal) if journal.exists() else (path,):
        if not file.is_file() or file.stat().st_size > MAX_DATABASE_BYTES:
            limit = f"{MAX_DATABASE_BYTES:,} bytes"
            raise OSError(f"{file.name} is not a regular file of at most {limit}")
    if journal.exists() and journal.read_bytes().endswith(JOURNAL_MAGIC):
        raise OSError(f"{journal.name} names another file")
    with TemporaryDirectory() as folder:
        try:
            connection = _connect(path, "ro")
        except sqlite3.OperationalError:
            if not journal.exists():
                raise
            # The journal of a killed process: roll back its transaction in a copy.
            copy = Path(folder, path.name)
            shutil.copyfile(path, copy)
            shutil.copyfile(journal, copy.with_name(journal.name))
            connection = _connect(copy, "rw")
        with closing(connection):
            yield connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")  # fails if there is a journal
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _definitions(connection: sqlite3.Connection) -> Counter[tuple[str, str]]:
    """Return the names and definitions in a database, without reading its tables."""
    query = f"SELECT name, coalesce(sql, '') FROM sqlite_master LIMIT {MAX_DEFINITIONS}"
    definitions = Counter((str(name), str(sql)) for name, sql in connection.execute(query))
    if definitions.total() == MAX_DEFINITIONS:
        raise OSError(f"it has {MAX_DEFINITIONS} definitions or more")
    return definitions


def _problem(connection: sqlite3.Connection) -> str | None:
    """Return why the content of the tables would take too long to read; None if it does not."""
    rows = 0
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        rows += connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]
        if rows > MAX_ROWS:
            return f"it has more than {MAX_ROWS:,} rows"
        for _, column, kind, *_ in connection.execute(f'PRAGMA table_info("{table}")').fetchall():
            # SQLite stores any value in any column.
            is_number = kind.startswith(("BIGINT", "FLOAT", "INT"))
            query = f'SELECT max(length(CAST("{column}" AS BLOB))), max(typeof("{column}") IN '
            query += f"('text', 'blob')) FROM \"{table}\""
            length, has_text = connection.execute(query).fetchone()
            if (length or 0) > MAX_VALUE_BYTES:
                return f"a value in {table} is longer than {MAX_VALUE_BYTES:,} bytes"
            if is_number and has_text:
                return f"a value in {table} is not a number"
    return None
