"""Databases and journals of sweeps from an attacker."""

import os
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from mnist_lightning.errors import UserError
from mnist_lightning.tuning.database import JOURNAL_MAGIC, check_database, check_storage
from tests.conftest import Command
from tests.tuning.conftest import SHORT_SWEEP

pytestmark = pytest.mark.slow


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Return the path of a sweep's database, as optuna creates it."""
    path = tmp_path / "study.db"
    check_database(f"sqlite:///{path}")  # does not exist yet
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    storage.engine.dispose()
    check_database(f"sqlite:///{path}")
    return path


ENDLESS_QUERY = "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM t) SELECT x FROM t"


@pytest.mark.parametrize(
    "change",
    [
        f"CREATE VIEW more AS {ENDLESS_QUERY}",
        "CREATE TRIGGER more AFTER INSERT ON studies BEGIN SELECT 1; END",
        "CREATE TABLE more (a, b AS (hex(zeroblob(5000000))))",
        "CREATE INDEX more ON studies (hex(study_name))",
        "UPDATE sqlite_master SET sql = replace(sql, 'study_id INTEGER', 'study_id INTEGER "
        "CHECK (instr(hex(zeroblob(5000000)), hex(zeroblob(2500000)))=0)')",
    ],
)
def test_a_database_cannot_execute_code(database: Path, change: str) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema=1")
        connection.execute(change)
    for url in ("sqlite:///{}", "sqlite:///{}?timeout=60", "sqlite+pysqlite:///{}"):
        with pytest.raises(UserError, match="is not the database of a sweep"):
            check_database(url.format(database))


@pytest.mark.parametrize("count", [100, 1000])
def test_a_database_with_many_definitions_is_rejected(database: Path, count: int) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        query = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master WHERE sql IS NULL"
        row = connection.execute(query).fetchone()
        connection.execute("PRAGMA writable_schema=1")
        names = "(type, name, tbl_name, rootpage, sql)"
        insert = f"INSERT INTO sqlite_master {names} VALUES (?, ?, ?, ?, ?)"
        connection.executemany(insert, [row] * count)
        connection.execute("PRAGMA writable_schema=0")
    with pytest.raises(UserError, match="is not the database of a sweep"):
        check_database(f"sqlite:///{database}")


def test_garbage_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("garbage" * 1000)
    with pytest.raises(UserError, match="is not the database of a sweep, or damaged"):
        check_database(f"sqlite:///{tmp_path / 'study.db'}")


def test_a_database_url_with_options_is_rejected() -> None:
    with pytest.raises(UserError, match="expected sqlite:///PATH"):
        check_database("sqlite:///file:study.db?mode=rw&uri=true")


def write_rollback_journal(database: Path, end: bytes) -> Path:
    pages = struct.pack(">IIIII", 0, 1, database.stat().st_size // 4096, 512, 4096)
    journal = database.with_name("study.db-journal")
    journal.write_bytes((JOURNAL_MAGIC + pages).ljust(512, b"\0") + end)
    return journal


def test_a_journal_cannot_delete_another_file(command: Command, database: Path) -> None:
    precious = database.with_name("precious")
    precious.write_text("mine")
    name = str(precious).encode()
    checksum = sum(struct.unpack(f"{len(name)}b", name)) & 0xFFFFFFFF
    end = struct.pack(">I", 0x40000000 // 4096 + 1) + name
    write_rollback_journal(database, end + struct.pack(">II", len(name), checksum) + JOURNAL_MAGIC)
    database.with_name("space.yaml").write_text("data.batch_size: {choice: [32]}")
    result = command(*SHORT_SWEEP, "--storage", f"sqlite:///{database}?timeout=60")
    assert (result.status, "names another file" in result.err) == (1, True), result.err
    assert precious.read_text() == "mine"


def test_a_killed_sweep_s_journal_is_rolled_back(database: Path) -> None:
    write_rollback_journal(database, b"")
    check_database(f"sqlite:///{database}")
    optuna.storages.RDBStorage(f"sqlite:///{database}")


@pytest.mark.parametrize("suffix", ["", "-journal", "-wal", "-shm"])
def test_a_file_of_a_database_must_not_be_a_link(database: Path, suffix: str) -> None:
    path = database.with_name(f"{database.name}{suffix}")
    path.unlink(missing_ok=True)
    path.symlink_to(database.with_name("elsewhere"))
    with pytest.raises(UserError, match="is a link"):
        check_database(f"sqlite:///{database}")


def create_link(path: Path) -> None:
    path.symlink_to(path.with_name(".bashrc"))


def create_large_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(20_000_000_000)


def create_lock(path: Path, target: str = "missing") -> None:
    path.with_name("x.journal.lock").symlink_to(target)


JOURNALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link": (create_link, "is a link"),
    "a pipe": (os.mkfifo, "not a regular file"),
    "large": (create_large_file, "too large"),
    "a long line": (lambda path: path.write_bytes(b"[],\n" + b"[]," * 100_000), "too long"),
    "locked": (create_lock, "but not to x.journal"),
    # Its time of modification is always now.
    "locked forever": (lambda path: create_lock(path, "/proc/self/ns/net"), "but not to x.journal"),
}


@pytest.mark.parametrize("kind", JOURNALS)
def test_a_journal_is_checked_before_it_is_opened(tmp_path: Path, kind: str) -> None:
    create, message = JOURNALS[kind]
    create(tmp_path / "x.journal")
    with pytest.raises(UserError, match=message):
        check_storage(str(tmp_path / "x.journal"))
    assert not (tmp_path / ".bashrc").exists()


LONG = "hex(zeroblob(100000))"
MANY_ROWS = "WITH RECURSIVE t(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM t WHERE n < 250000) "


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (f"UPDATE trial_values SET value = 'x' || {LONG}", "longer than 100,000 bytes"),
        ("UPDATE trial_values SET value = 'text'", "a value in trial_values is not a number"),
        (f"UPDATE trial_params SET distribution_json = {LONG}", "longer than 100,000 bytes"),
        (
            f"UPDATE trial_params SET distribution_json = char(0) || {LONG}",
            "longer than 100,000",
        ),
        (
            f"{MANY_ROWS} INSERT INTO trials (number, study_id, state) SELECT n, 1, 'FAIL' FROM t",
            "it has more than 200,000 rows",
        ),
        (
            "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
            "VALUES (1, 'x', replace(hex(zeroblob(20000)), '0', '['))",
            "",
        ),
        (
            "UPDATE trial_params SET distribution_json = replace(distribution_json, '32', "
            "'\"' || hex(zeroblob(20000)) || '\"')",
            "",
        ),
    ],
)
def test_hostile_values_in_a_database_are_refused(
    command: Command, tmp_path: Path, change: str, message: str
) -> None:
    (tmp_path / "space.yaml").write_text("data.batch_size: {choice: [32]}")
    create_changed_study(tmp_path / "lightning_logs" / "sweeps" / "space", change)
    result = command(*SHORT_SWEEP)
    assert result.status == 1
    assert message in result.err
    assert "looks like a bug" not in result.err
    assert len(result.out + result.err) < 5_000


@pytest.mark.parametrize(
    "change", ["UPDATE trial_values SET value = NULL", "UPDATE trials SET state = 'NOPE'"]
)
def test_invalid_values_in_a_database_are_reported(
    command: Command, tmp_path: Path, change: str
) -> None:
    (tmp_path / "space.yaml").write_text("data.batch_size: {choice: [32]}")
    create_changed_study(tmp_path / "lightning_logs" / "sweeps" / "space", change)
    result = command(*SHORT_SWEEP)
    assert result.status == 1
    assert "looks like a bug" not in result.err


def create_changed_study(folder: Path, change: str) -> None:
    """Create the database of a sweep with one finished trial, and change it."""
    folder.mkdir(parents=True)
    url = f"sqlite:///{folder / 'study.db'}"
    study = optuna.create_study(study_name="space", storage=url, direction="maximize")
    choices = optuna.distributions.CategoricalDistribution((32,))
    study.add_trial(
        optuna.create_trial(
            params={"data.batch_size": 32}, distributions={"data.batch_size": choices}, value=0.5
        )
    )
    with closing(sqlite3.connect(folder / "study.db")) as connection:
        connection.execute(change)
        connection.commit()


def test_huge_files_beside_a_database_are_handled(command: Command, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("data.batch_size: {choice: [32]}")
    folder = tmp_path / "lightning_logs" / "sweeps" / "space"
    folder.mkdir(parents=True)
    for name in (".owner", "../../../digits"):
        create_large_file(folder / name)
    result = command(*SHORT_SWEEP)
    assert (result.status, "too large" in result.err) == (1, True)
    (folder / ".owner").unlink()
    create_large_file(folder / "trial_0.log")
    assert command(*SHORT_SWEEP).status == 0
