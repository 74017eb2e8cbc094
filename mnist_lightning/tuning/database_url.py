"""The URL of a database server: parse it, hide its password, explain the errors of the server."""

import re

from optuna.exceptions import StorageInternalError
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

MAX_REASON_CHARS = 250
_FORM = (
    "expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for each @ in the password"
)

# A part of PostgreSQL's message, and the fix.
_FIXES = (
    (r'database ".*" does not exist', "Create the database: createdb NAME"),
    (
        r"password|fe_sendauth|authentication|role",
        "Correct the user or the password, in the URL or in the file ~/.pgpass",
    ),
    (
        r"permission denied",
        "Make the user the owner of the database: ALTER DATABASE name OWNER TO user",
    ),
    (
        r"connect|resolve|translate|timeout",
        "Check the address, and that the server runs and accepts connections from this machine",
    ),
)


def parse_url(url: str) -> URL:
    """Parse the URL of a database server.

    Raises:
        ValueError: it is invalid. The message contains no part of it, which may be a password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(_FORM) from None
    if "@" in (parsed.host or ""):  # a part of the password
        raise ValueError(_FORM)
    if parsed.drivername in ("postgres", "postgresql"):
        # Without a driver, the meaning depends on the version of SQLAlchemy.
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def hide_password(url: str) -> str:
    """Return the URL of a database for messages; an invalid one may have its password anywhere."""
    hidden = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    return re.sub(r"(password=)[^&]*", r"\1***", hidden)


def reason(error: BaseException) -> str:
    """Return what a database reports, in one line."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    return " ".join(str(error).split())[:MAX_REASON_CHARS]


def explain(url: str, error: Exception) -> str:
    """Return the message for a storage that cannot be opened."""
    shown = hide_password(url)
    if isinstance(error, ImportError):
        if url.startswith("postgres"):
            install = "pip install 'mnist-lightning[postgresql]'"
            return f"--storage {shown} needs psycopg; install it: {install}"
        missing = reason(error.__cause__ or error)
        return f"--storage {shown} needs the driver of its database: {missing}"
    text = reason(error)
    fixes = (fix for pattern, fix in _FIXES if re.search(pattern, text))
    fix = next(fixes, "") if isinstance(error, (StorageInternalError, DBAPIError)) else ""
    return f"--storage {shown} cannot be used: {text.rstrip('.?')}{fix and f'. {fix}'}"
