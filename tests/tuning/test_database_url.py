"""URLs of databases: no message contains a password, and each error has a fix."""

import re
import sys
from pathlib import Path

import pytest

from mnist_lightning.tuning.database_url import hide_password, parse_url
from tests.conftest import Command
from tests.tuning.conftest import SHORT_SWEEP


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("postgresql://:secret@host/db", "postgresql://:***@host/db"),
        ("postgresql://me:sec@ret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:sec/r:e@t@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:sec\nret@host/db", "postgresql://me:***@host/db"),
        ("postgresql:///db?user=me&password=secret", "postgresql:///db?user=me&password=***"),
        ("postgresql:///db?sslpassword=secret&x=1", "postgresql:///db?sslpassword=***&x=1"),
        ("sqlite:///a:b@c.db", "sqlite:///a:b@c.db"),
        ("study.journal", "study.journal"),
    ],
)
def test_a_password_is_hidden(url: str, shown: str) -> None:
    assert hide_password(url) == shown


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:sec@ret@host/db", "postgresql://me:s@e:cret@host/db", "://", "post gres://"],
)
def test_an_invalid_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="expected postgresql://USER:PASSWORD@HOST") as caught:
        parse_url(url)
    assert "cret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_name_of_postgresql_uses_the_driver_of_the_extra(scheme: str) -> None:
    assert parse_url(f"{scheme}://me:p{{w}}@host/db").drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "postgresql://me:secret@127.0.0.1:1/db",
            "refused.*. Check the address, and that the server",
        ),
        ("postgresql://me:sec@ret@127.0.0.1/db", "cannot be used: expected postgresql://USER:PASS"),
        ("unknown://me:secret@127.0.0.1/db", "cannot be used: Can't load plugin: .*unknown"),
    ],
)
def test_an_unusable_url_is_reported_in_one_line(
    command: Command, sweep_folder: Path, url: str, message: str
) -> None:
    result = command(*SHORT_SWEEP, "--storage", url)
    assert result.status == 1
    assert result.err.startswith("mnist-lightning: error: --storage ")
    assert result.err.count("\n") == 1
    assert re.search(message, result.err)
    assert "secret" not in result.err
    assert "ret@" not in result.err


def test_a_missing_driver_is_reported_with_its_installation(
    command: Command, sweep_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    result = command(*SHORT_SWEEP, "--storage", "postgresql://me:secret@host/db")
    assert result.status == 1
    shown = "--storage postgresql://me:***@host/db needs psycopg; install it: "
    assert f"{shown}pip install 'mnist-lightning[postgresql]'\n" in result.err
