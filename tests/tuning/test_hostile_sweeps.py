"""Search spaces, databases and folders of sweeps from an attacker."""

import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from mnist_lightning.errors import UserError
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.tuning.database import JOURNAL_MAGIC, check_database, check_storage
from mnist_lightning.tuning.trial_runner import processes_of
from tests.conftest import DIGITS, Command

pytestmark = pytest.mark.slow

OPTIONS = [*DIGITS, "--trainer.limit_train_batches", "2", "--trainer.max_epochs", "1"]
SWEEP = ["sweep", "--space", "space.yaml", "--trials", "1", *OPTIONS]
EVIL = "open('executed', 'w')\nimport torch\nclass Net(torch.nn.Flatten): pass\n"


@pytest.mark.parametrize(
    "space",
    [
        "model.network: {choice: [evil.Net]}",
        "model.network: {choice: [TinyCNN, {class_path: evil.Net}]}",
        'model.network: {choice: [\'{"class_path": "evil.Net"}\']}',
        "model.network.class_path: {choice: [evil.Net]}",
        "trainer.callbacks: {choice: [[{class_path: evil.Net}]]}",
        "trainer.callbacks+: {choice: [evil.Net]}",
        "model.optimizer: {choice: [Adam, evil.Net]}",
    ],
)
def test_a_space_cannot_add_classes(command: Command, tmp_path: Path, space: str) -> None:
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "space.yaml").write_text(space)
    result = command(*SWEEP)
    assert (result.status, "evil.Net" in result.err) == (2, True)
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "lightning_logs").exists()


@pytest.mark.parametrize("option", ["model.network", "model.lr_scheduler", "model.optimizer"])
def test_the_help_of_a_class_is_not_an_option_of_a_space(
    command: Command, tmp_path: Path, option: str
) -> None:
    """The parser imports the class whose help is requested."""
    (tmp_path / "space.yaml").write_text(f"{option}.help: {{choice: [this.s]}}")
    result = command(*SWEEP)
    assert result.status == 2
    assert f"unknown option {option}.help" in result.err
    assert "this" not in sys.modules


def test_a_space_may_use_the_classes_of_the_command(command: Command, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from mnist_lightning.networks.tiny_cnn import TinyCNN\nclass Own(TinyCNN): pass\n"
    )
    (tmp_path / "space.yaml").write_text("model.network: {choice: [own.Own]}")
    for consent in (["--model.network", "own.Own"], ["--trust"]):
        result = command(*SWEEP, *consent, "--name", consent[0].strip("-"))
        assert result.status == 0, result.err


@pytest.mark.parametrize(
    ("space", "named"),
    [
        ("trainer.logger: {choice: [true]}", "trainer.logger"),
        ("trainer.default_root_dir: {choice: [/tmp/elsewhere]}", "trainer.default_root_dir"),
        ("data.data_dir: {choice: [/tmp/elsewhere]}", "data.data_dir"),
        ("trainer.devices: {choice: [2]}", "trainer.devices"),
        ("trust: {choice: [true]}", "trust"),
        ("model: {choice: [{network: {class_path: evil.Net}}]}", "unknown option model"),
        ("'model.network=evil.Net --x': {choice: [1]}", "is not the name"),
        ("trainer.callbacks: {choice: [[ModelCheckpoint]]}", "ModelCheckpoint"),
    ],
)
def test_a_space_cannot_change_paths_or_devices(
    command: Command, tmp_path: Path, space: str, named: str
) -> None:
    (tmp_path / "space.yaml").write_text(space)
    result = command(*SWEEP)
    assert (result.status, named in result.err) == (2, True), result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["space.yaml"]


def test_the_log_of_a_trial_must_not_be_a_link(command: Command, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("data.batch_size: {choice: [32]}\n")
    folder = tmp_path / "lightning_logs" / "sweeps" / "space"
    folder.mkdir(parents=True)
    precious = tmp_path / ".bashrc"
    precious.write_text("alias ls=ls\n")
    (folder / "trial_0.log").symlink_to(precious)
    result = command("sweep", "--space", "space.yaml", "--trials", "1", *OPTIONS)
    assert result.status == 1
    assert "trial_0.log is a link out of" in result.err
    assert precious.read_text() == "alias ls=ls\n"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Return the path of a sweep's database, as optuna creates it."""
    path = tmp_path / "study.db"
    check_database(f"sqlite:///{path}")  # does not exist yet
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    storage.engine.dispose()
    check_database(f"sqlite:///{path}")
    return path


ENDLESS = "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM t) SELECT x FROM t"


@pytest.mark.parametrize(
    "change",
    [
        f"CREATE VIEW more AS {ENDLESS}",
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


def _journal(database: Path, end: bytes) -> Path:
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
    _journal(database, end + struct.pack(">II", len(name), checksum) + JOURNAL_MAGIC)
    database.with_name("space.yaml").write_text("data.batch_size: {choice: [32]}")
    result = command(*SWEEP, "--storage", f"sqlite:///{database}?timeout=60")
    assert (result.status, "names another file" in result.err) == (1, True), result.err
    assert precious.read_text() == "mine"


def test_a_killed_sweep_s_journal_is_rolled_back(database: Path) -> None:
    _journal(database, b"")
    check_database(f"sqlite:///{database}")
    optuna.storages.RDBStorage(f"sqlite:///{database}")


@pytest.mark.parametrize("command_line", [SWEEP, ["fit", *OPTIONS, "--run_dir", "out"]])
def test_no_file_is_created_through_a_link(
    command: Command, tmp_path: Path, command_line: list[str]
) -> None:
    (tmp_path / "space.yaml").write_text("data.batch_size: {choice: [32]}")
    for folder in ("out/checkpoints", "lightning_logs/sweeps/space"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f".{os.getpid()}.tmp").symlink_to(tmp_path / "made")
    command(*command_line)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("suffix", ["", "-journal", "-wal", "-shm"])
def test_a_file_of_a_database_must_not_be_a_link(database: Path, suffix: str) -> None:
    path = database.with_name(f"{database.name}{suffix}")
    path.unlink(missing_ok=True)
    path.symlink_to(database.with_name("elsewhere"))
    with pytest.raises(UserError, match="is a link"):
        check_database(f"sqlite:///{database}")


def _link(path: Path) -> None:
    path.symlink_to(path.with_name(".bashrc"))


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(20_000_000_000)


def _lock(path: Path, target: str = "missing") -> None:
    path.with_name("x.journal.lock").symlink_to(target)


JOURNALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link": (_link, "is a link"),
    "a pipe": (os.mkfifo, "not a regular file"),
    "large": (_large, "too large"),
    "a long line": (lambda path: path.write_bytes(b"[],\n" + b"[]," * 100_000), "too long"),
    "locked": (_lock, "but not to x.journal"),
    # Its time of modification is always now.
    "locked forever": (lambda path: _lock(path, "/proc/self/ns/net"), "but not to x.journal"),
}


@pytest.mark.parametrize("kind", JOURNALS)
def test_a_journal_is_checked_before_it_is_opened(tmp_path: Path, kind: str) -> None:
    create, message = JOURNALS[kind]
    create(tmp_path / "x.journal")
    with pytest.raises(UserError, match=message):
        check_storage(str(tmp_path / "x.journal"))
    assert not (tmp_path / ".bashrc").exists()


@pytest.mark.parametrize("link", ["lightning_logs/sweeps", "lightning_logs/sweeps/space"])
def test_a_sweep_s_folder_must_not_be_a_link(command: Command, tmp_path: Path, link: str) -> None:
    (tmp_path / "space.yaml").write_text("data.batch_size: {choice: [32]}")
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / link).parent.mkdir(parents=True)
    (tmp_path / link).symlink_to(outside)
    result = command(*SWEEP)
    assert (result.status, "is a link out of" in result.err) == (1, True)
    assert not list(outside.iterdir())


LONG = "hex(zeroblob(100000))"
SAME = "WITH RECURSIVE t(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM t WHERE n < 250000) "


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (f"UPDATE trial_values SET value = 'x' || {LONG}", "longer than 100,000 bytes"),
        ("UPDATE trial_values SET value = 'text'", "a value in trial_values is not a number"),
        (f"UPDATE trial_params SET distribution_json = {LONG}", "longer than 100,000 bytes"),
        (f"UPDATE trial_params SET distribution_json = char(0) || {LONG}", "longer than 100,000"),
        (
            f"{SAME} INSERT INTO trials (number, study_id, state) SELECT n, 1, 'FAIL' FROM t",
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
    _change_study(tmp_path / "lightning_logs" / "sweeps" / "space", change)
    result = command(*SWEEP)
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
    _change_study(tmp_path / "lightning_logs" / "sweeps" / "space", change)
    result = command(*SWEEP)
    assert result.status == 1
    assert "looks like a bug" not in result.err


def _change_study(folder: Path, change: str) -> None:
    """Make the database of a sweep with one finished trial, and change it."""
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


def test_another_program_with_the_run_as_argument_is_not_its_process(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for more, found in ([], False), (["mnist_lightning"], True):
        command = [sys.executable, "-c", "input()", *more, str(tmp_path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            pids = {each.pid for each in processes_of(run)}
            process.communicate(b"\n")
        assert (process.pid in pids) == found


def test_huge_files_beside_a_database_are_handled(command: Command, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("data.batch_size: {choice: [32]}")
    folder = tmp_path / "lightning_logs" / "sweeps" / "space"
    folder.mkdir(parents=True)
    for name in (".owner", "../../../digits"):
        _large(folder / name)
    result = command(*SWEEP)
    assert (result.status, "too large" in result.err) == (1, True)
    (folder / ".owner").unlink()
    _large(folder / "trial_0.log")
    assert command(*SWEEP).status == 0
