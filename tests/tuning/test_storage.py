"""Which storages of sweeps are opened, and what damaged ones cause."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Event

import optuna
import pytest

from mnist_lightning.errors import UserError
from mnist_lightning.tuning import storage as storages
from tests.conftest import Command
from tests.tuning.conftest import SHORT_SWEEP

KINDS = {"SQLite": "sqlite:///{}/study.db", "journal": "{}/study.journal"}
open_storage = partial(storages.open_storage, stop=Event(), report=print)
REFUSED = "was not made by your sweeps on this machine"


def create_study(url: str) -> None:
    """Create a study with one finished trial, as another person could."""
    backend = optuna.storages.journal.JournalFileBackend
    storage = url if "://" in url else optuna.storages.JournalStorage(backend(url))
    study = optuna.create_study(study_name="space", storage=storage, direction="maximize")
    choices = optuna.distributions.CategoricalDistribution((32,))
    study.add_trial(
        optuna.create_trial(
            params={"data.batch_size": 32}, distributions={"data.batch_size": choices}, value=0.5
        )
    )


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_foreign_storage_is_opened_only_with_trust(tmp_path: Path, kind: str) -> None:
    url = KINDS[kind].format(tmp_path)
    create_study(url)
    before = read_files(tmp_path)
    with pytest.raises(UserError, match=REFUSED):
        open_storage(url, trust=False)
    assert read_files(tmp_path) == before
    for trust in (True, False):  # once is enough
        storage = open_storage(url, trust)
        assert [study.study_name for study in storage.get_all_studies()] == ["space"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_own_storage_is_opened_again_but_not_elsewhere(tmp_path: Path, kind: str) -> None:
    own, moved = tmp_path / "own", tmp_path / "moved"
    own.mkdir()
    for _ in range(2):
        assert open_storage(KINDS[kind].format(own), trust=False).get_all_studies() == []
    own.rename(moved)
    with pytest.raises(UserError, match=REFUSED):
        open_storage(KINDS[kind].format(moved), trust=False)


PLANTED: dict[str, Callable[[Path, Path], object]] = {
    "a dangling link": lambda path, _: path.symlink_to("missing"),
    "a link to a file of the user": lambda path, precious: path.symlink_to(precious),
    "a hard link to a file of the user": lambda path, precious: path.hardlink_to(precious),
    "a file": lambda path, _: path.write_bytes(b"garbage" * 1000),
    "a pipe": lambda path, _: os.mkfifo(path),
    "a folder": lambda path, _: path.mkdir(),
}
FILES = {
    "SQLite": ["study.db", "study.db-journal", "study.db-wal", "study.db-shm"],
    "journal": ["study.journal", "study.journal.lock"],
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in FILES[kind]])
@pytest.mark.parametrize("planted", PLANTED)
def test_no_file_beside_a_new_storage_is_used(
    tmp_path: Path, kind: str, name: str, planted: str
) -> None:
    folder, precious = tmp_path / "study", tmp_path / "precious"
    folder.mkdir()
    precious.write_text("mine")
    PLANTED[planted](folder / name, precious)
    with pytest.raises(UserError, match=f"{name} {REFUSED}"):
        open_storage(KINDS[kind].format(folder), trust=False)
    assert [path.name for path in folder.iterdir()] == [name]
    assert precious.read_text() == "mine"
    assert not (folder / "missing").exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:///file:study.db?mode=rw&uri=true", "expected sqlite:///PATH"),
        ("sqlite+pysqlite:///file:study.db?uri=true", "expected sqlite:///PATH"),
        ("study.db", "expected a URL such as"),
    ],
)
def test_other_forms_of_urls_are_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_storage(url, trust=False)


@pytest.mark.parametrize("url", ["sqlite:///{}?timeout=60", "sqlite+pysqlite:///{}"])
def test_every_form_of_an_sqlite_url_is_checked(tmp_path: Path, url: str) -> None:
    create_study(KINDS["SQLite"].format(tmp_path))
    with pytest.raises(UserError, match=REFUSED):
        open_storage(url.format(tmp_path / "study.db"), trust=False)


@pytest.mark.slow
def test_a_sweep_refuses_a_foreign_database_and_continues_it_with_trust(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "space.yaml").write_text("data.batch_size: {choice: [32]}")
    folder = tmp_path / "lightning_logs" / "sweeps" / "space"
    folder.mkdir(parents=True)
    create_study(KINDS["SQLite"].format(folder))
    for options, status in (([], 1), (["--trust"], 0), ([], 0)):
        result = command(*SHORT_SWEEP, *options)
        assert (result.status, REFUSED in result.err) == (status, status == 1), result.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE trial_values SET value = NULL",
        "UPDATE trial_values SET value = 'text'",
        "UPDATE trials SET state = 'NOPE'",
        "INSERT INTO trial_values (trial_id, objective, value, value_type) "
        "VALUES (1, 1, 0.5, 'FINITE')",
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
        "VALUES (1, 'x', replace(hex(zeroblob(20000)), '0', '['))",
        "UPDATE trial_params SET distribution_json = replace(distribution_json, '32', "
        "'\"' || hex(zeroblob(20000)) || '\"')",
    ],
)
def test_invalid_values_in_an_own_database_are_reported(
    command: Command, tmp_path: Path, change: str
) -> None:
    (tmp_path / "space.yaml").write_text("data.batch_size: {choice: [32]}")
    assert command(*SHORT_SWEEP).status == 0
    database = tmp_path / "lightning_logs" / "sweeps" / "space" / "study.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(change)
        connection.commit()
    result = command(*SHORT_SWEEP)
    assert result.status == 1
    assert "looks like a bug" not in result.err
    assert len(result.out + result.err) < 5_000


@pytest.mark.slow
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


def create_large_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(20_000_000_000)
