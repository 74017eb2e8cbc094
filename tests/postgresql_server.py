"""A PostgreSQL server in a temporary folder, for tests and benchmarks of sweeps."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

USER, PASSWORD = "tester", "p{w}:%/@s3cret"
PASSWORD_IN_URL = "p{w}:%25%2F%40s3cret"


def find_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; None if they are not installed.

    Debian does not add it to the search path.
    """
    folders = [*Path("/usr/lib/postgresql").glob("*/bin")]
    folders += [Path(path).parent for path in [shutil.which("initdb")] if path]
    return max((each for each in folders if (each / "initdb").is_file()), default=None)


def find_user() -> str | None:
    """Return the user of the server, which must not be root; None if there is none."""
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid()).pw_name
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else None


class PostgresqlServer:
    """A server that listens only on a socket in its own folder.

    Args:
        folder: an empty folder of the server's user.
        programs: the folder of PostgreSQL's programs.
        user: the name of the user that runs the server.
    """

    def __init__(self, folder: Path, programs: Path, user: str) -> None:
        self.folder = folder
        self.programs = programs
        self.user = user
        password = folder / "password"
        password.write_text(PASSWORD)
        if os.getuid() == 0:
            shutil.chown(folder, user)
            shutil.chown(password, user)
        login = ["--username", USER, "--auth", "scram-sha-256", "--pwfile", str(password)]
        self._run("initdb", *login, "--no-sync", "--encoding", "UTF8", "--locale", "C")
        settings = f"unix_socket_directories = '{folder}'\nlisten_addresses = ''\n"
        # The tests stop the server, not the computer.
        settings += "fsync = off\nshared_buffers = 16MB\n"
        with (folder / "data" / "postgresql.conf").open("a") as file:
            file.write(settings)

    def url(self, database: str = "postgres", password: str = PASSWORD_IN_URL) -> str:
        """Return the URL of a database, for `--storage`."""
        return f"postgresql://{USER}:{password}@/{database}?host={self.folder}"

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        self._run("pg_ctl", "start", "--wait", "--log", str(self.folder / "log"))

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `fast` ends its connections, `immediate` is like a crash."""
        self._run("pg_ctl", "stop", "--wait", "--mode", mode)

    def _run(self, program: str, *options: str) -> None:
        """Run a program of PostgreSQL as the user of the server."""
        identity: dict[str, Any] = {}
        if os.getuid() == 0:
            entry = pwd.getpwnam(self.user)
            identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        command = [str(self.programs / program), "--pgdata", str(self.folder / "data"), *options]
        # The server keeps its standard streams: with a pipe, this call would wait for its end.
        with (self.folder / "output").open("ab") as output:
            subprocess.run(
                command, check=True, stdout=output, stderr=output, cwd=self.folder, **identity
            )


@contextmanager
def start_postgresql() -> Iterator[PostgresqlServer | None]:
    """Start a server, and stop it at the end; None if PostgreSQL cannot run on this machine."""
    programs, user = find_programs(), find_user()
    if programs is None or user is None:
        yield None
        return
    # Other users may not enter pytest's folders, and the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="postgresql_") as folder:
        server = PostgresqlServer(Path(folder), programs, user)
        server.start()
        try:
            yield server
        finally:
            if (server.folder / "data" / "postmaster.pid").exists():
                server.stop()
