"""Run directories: create and list them, read and write their files.

This module does not import torch, so that a list of runs does not wait for this import.
"""

import json
import os
import re
import shlex
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from mnist_lightning import files
from mnist_lightning.errors import PACKAGE, PROGRAM, UserError, unsigned_files
from mnist_lightning.runs import signature
from mnist_lightning.runs.former_versions import upgrade_names
from mnist_lightning.runs.summary_json import read_summary
from mnist_lightning.text import printable

LOGS_FOLDER = "lightning_logs"
PRETRAINED_FOLDER, WEIGHTS = PACKAGE / "pretrained", "model.safetensors"
VERSION = re.compile(r"version_([0-9]{1,6})")
MAX_VERSION = 999_999
_CONFIG = "config"  # of a signature
_SIGNED = b"# signature of mnist_lightning: "  # the last line of a signed config.yaml
_HEX = re.compile(rb"[0-9a-f]{64}\n")


@dataclass(frozen=True)
class Run:
    """A run directory and its files."""

    folder: Path

    @property
    def version(self) -> int:
        """The N of `version_N`; -1 for a folder with another name."""
        match = VERSION.fullmatch(self.folder.name)
        return int(match[1]) if match else -1

    @property
    def reference(self) -> str:
        """The shortest RUN with which a command finds this run from its original working directory.

        It is quoted for a shell.
        """
        if self.is_pretrained:
            return self.folder.name
        default = Path(LOGS_FOLDER) / f"version_{self.version}"
        return str(self.version) if self.folder == default else shlex.quote(str(self.folder))

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.folder / "checkpoints"

    @property
    def is_pretrained(self) -> bool:
        """Whether it is the network of this package, and not a run of a user."""
        return self.folder == PRETRAINED_FOLDER

    @property
    def best(self) -> Path:
        """Its best checkpoint; of the network of this package, the weights."""
        return self.folder / WEIGHTS if self.is_pretrained else self.checkpoints / "best.ckpt"

    def recent(self, index: int = 0) -> Path:
        """Its last checkpoint, or the one `index` before it."""
        return self.checkpoints / ("last.ckpt" if index == 0 else f"last-{index}.ckpt")

    @property
    def config(self) -> Path:
        """Its complete configuration."""
        return self.folder / "config.yaml"

    @property
    def predictions(self) -> Path:
        """The predictions of its best checkpoint for the test images."""
        return self.folder / "predictions.csv"

    @property
    def snapshots(self) -> Path:
        """The folder of its snapshots: see `runs.snapshots`."""
        return self.folder / "snapshots"

    def write_config(self, config: dict[str, Any], sign: bool = True) -> bool:
        """Write `config.yaml`, from which the run can be repeated; return whether it is signed.

        `sign` only configurations from the user's own command: signed classes are imported.
        """
        content = yaml.safe_dump(config, sort_keys=False).encode()
        signed = signature.sign(_CONFIG, content) if sign else None
        tail = b"" if signed is None else _SIGNED + signed.hex().encode() + b"\n"
        files.write_atomically(content + tail, self.config)
        return signed is not None

    def read_config(self) -> dict[str, Any]:
        """Read `config.yaml`.

        Raises:
            UserError: it is damaged.
        """
        return self.read_signed_config()[0]

    def read_signed_config(self) -> tuple[dict[str, Any], bool]:
        """Read `config.yaml`, and return whether this user wrote it on this machine.

        Raises:
            UserError: it is damaged.
        """
        try:
            content = files.read_bounded(self.config, files.MAX_YAML_BYTES)
            config = files.parse_yaml(content.decode())
        except (UserError, OSError, ValueError, yaml.YAMLError, files.LimitError):
            config = None
        if not isinstance(config, dict):
            raise UserError(f"{self.config} is damaged or not a configuration")
        content, mark, tail = content.rpartition(_SIGNED)
        signed = bytes.fromhex(tail.decode().strip()) if _HEX.fullmatch(tail) else b""
        is_own = bool(mark) and signature.is_signed(_CONFIG, content, signed)
        if not is_own:
            unsigned_files.last = self.config
        return upgrade_names(config), is_own

    @property
    def lock_file(self) -> Path:
        """The file that a process locks while it trains in the run."""
        return self.folder / ".lock"

    def lock(self, timeout: float = 1.0) -> AbstractContextManager[Any]:
        """Lock the run against other training processes; wait up to `timeout` seconds for the lock.

        Raises:
            UserError: another process is training in this run.
        """
        lock = FileLock(self.lock_file, timeout=timeout)
        try:
            return lock.acquire()  # `with` releases the lock at its end
        except Timeout:
            problem = f"another process is training in {self.folder}"
            raise UserError(f"{problem}; wait until it ends") from None

    def is_locked(self) -> bool:
        """Return whether another process is training in this run."""
        try:
            with self.lock(timeout=0) if self.folder.is_dir() else nullcontext():
                return False
        except UserError:
            return True

    def is_training(self) -> bool:
        """Return `is_locked`, or False for a directory that cannot be locked: it is read-only."""
        try:
            return self.is_locked()
        except OSError:
            return False

    def refuse_links(self) -> None:
        """Check that no link leads out of the run directory; see `files.refuse_links`.

        Raises:
            UserError: there is such a link.
        """
        if self.folder.is_symlink():
            raise UserError(f"{self.folder} is a link; use the path of its target instead")
        files.refuse_links(self.folder, (".pbtxt",))

    def delete_temporary_files(self) -> None:
        """Delete the incomplete files of a killed process; the caller must hold the lock."""
        for folder in (self.folder, self.checkpoints, self.snapshots):
            for path in folder.glob(".*.tmp"):
                if path.is_file() or path.is_symlink():
                    path.unlink()

    def no_checkpoint_error(self, file: str) -> UserError:
        """Return the error for a checkpoint that does not exist."""
        incomplete = self.summary().get("state") in ("interrupted", "failed", "running")
        reason = ": the run ended before saving a checkpoint" if incomplete else ""
        return UserError(f"no {file} in {self.checkpoints}{reason}; train one with: {PROGRAM} fit")

    def summary(self, *names: str) -> dict[str, Any]:
        """Read the valid entries of `summary.json`; none if it is missing or damaged.

        Args:
            names: the entries to read, which takes less time; by default all.
        """
        return read_summary(self.folder / "summary.json", names)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replace `summary.json`."""
        text = json.dumps(summary, indent=2) + "\n"
        files.write_atomically(text.encode(), self.folder / "summary.json")

    def best_checkpoint(self) -> Path:
        """Find the checkpoint to evaluate: `best.ckpt`, or the newest of a stock Lightning run.

        Raises:
            UserError: the run has no checkpoint.
        """
        if self.best.is_file():
            return self.best
        others = [path for path in self.checkpoints.glob("*.ckpt") if path.is_file()]
        if not others or self.config.is_file():
            raise self.no_checkpoint_error("best.ckpt")
        return max(others, key=lambda path: path.stat().st_mtime)


def create_next(root: Path) -> Run:
    """Create the directory of a new run, with the next free version number.

    Raises:
        UserError: the directory cannot be created.
    """
    used = {run.version for run in list_runs(root)}
    version = max(used, default=-1) + 1
    if version > MAX_VERSION:  # a copied folder may have the last number
        version = next(number for number in count() if number not in used)
    while True:
        run = Run(root / f"version_{version}")
        try:
            root.mkdir(parents=True, exist_ok=True)
            run.folder.mkdir()  # atomic: one of two processes gets a FileExistsError
            run.checkpoints.mkdir()
            return run
        except FileExistsError:
            if not root.is_dir():
                raise UserError(f"cannot save runs in {root}: it is a file; {_REMEDY}") from None
            version += 1
        except OSError as error:
            raise UserError(f"cannot save runs in {root}: {error.strerror}; {_REMEDY}") from None


def create_at(folder: Path) -> Run:
    """Create a new run in a given directory.

    Raises:
        UserError: it is already a run, contains other files, or cannot be created.
    """
    run = Run(folder)
    if run.config.exists():
        raise UserError(f"--run_dir {folder} is already a run; continue the run with resume", 2)
    # A sweep marks the directory with a hidden file; a killed one may have created `checkpoints`.
    found = [*entries(folder), *entries(run.checkpoints)]
    if run.checkpoints.is_dir() and not run.checkpoints.is_symlink():
        found.remove(run.checkpoints)
    if names := [path.name for path in found if not path.name.startswith(".")]:
        problem = f"--run_dir {folder} already contains {printable(names[0])}"
        raise UserError(f"{problem}; give a new or empty directory", status=2)
    files.create_folder(run.checkpoints, "--run_dir")
    return run


_REMEDY = "make it writable, or use another folder: --trainer.default_root_dir DIR"


def list_runs(root: Path) -> list[Run]:
    """Return the run directories in `root`, oldest first."""
    if not root.is_dir():
        return []
    with os.scandir(root) as found:
        versions = [
            (int(match[1]), entry.name)
            for entry in found
            if (match := VERSION.fullmatch(entry.name))
            # A link, which may lead nowhere, needs a request to the file system.
            and (entry.is_dir(follow_symlinks=False) or Path(entry).is_dir())
        ]
    return [Run(root / name) for _, name in sorted(versions)]


def entries(folder: Path) -> list[Path]:
    """List a folder; empty if it does not exist."""
    return list(folder.iterdir()) if folder.is_dir() else []
