"""Write files atomically; read files, YAML and JSON within limits."""

import errno
import math
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from mnist_lightning import posix
from mnist_lightning.errors import UserError

# A typical configuration has 3 kB and 150 values in ten levels.
MAX_YAML_BYTES = 300_000
MAX_YAML_NODES = 20_000
YAML_CHARS_PER_NODE = 50  # a long text counts as several values
MAX_YAML_DEPTH = 30
MAX_YAML_OTHER_KEYS = 256  # keys of a mapping that are not strings
MAX_YAML_KEY_CHARS = 100  # names of options are joined with those above them
MAX_FOLDER_DEPTH = 50
MAX_RUN_FILES = 100_000
MAX_COPIED_BYTES = 100_000_000  # of the hard links in a folder
MAX_NUMBER_CHARS = 100  # 1:1:1:… would be a number in base 60 that takes quadratic time
_TAG = "tag:yaml.org,2002:"
_ALLOWED = {_TAG + name for name in ("map", "seq", "str", "int", "float", "bool", "null", "merge")}


class LimitError(Exception):
    """A file exceeds a limit that bounds the time and memory for reading it."""


def write_atomically(content: bytes, path: Path) -> None:
    """Write a file so that `path` contains either all of `content` or its previous content.

    The new file is written beside its target, flushed to the disk, and then renamed.
    """
    with replacement(path) as file:
        file.write(content)


@contextmanager
def replacement(path: Path) -> Iterator[BinaryIO]:
    """Open a new file for writing, which replaces `path` if the block ends without an error."""
    # The name is unpredictable, so that nobody can create a link with this name.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        posix.sync_folder(path.parent)
    except OSError as error:  # the error of a full disk contains no path
        raise type(error)(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def read_bounded(path: Path, limit: float) -> bytes:
    """Read a regular file of at most `limit` bytes; never block on a pipe.

    Raises:
        UserError: the file is larger.
        OSError: it cannot be read, or is not a regular file.
    """
    with posix.open_for_reading(path) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        # Files in /proc report no sizes.
        count = -1 if math.isinf(limit) else int(limit) + 1
        content = b"" if status.st_size > limit else file.read(count)
        if max(status.st_size, len(content)) > limit:
            raise UserError(f"{path} is too large: the limit is {limit:,.0f} bytes")
        return content


def walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """List the files and folders below a folder, in order; do not follow links to folders.

    Raises:
        UserError: the folders are nested too deeply.
    """
    stack = _list_backwards(folder, 1) if folder.is_dir() else []
    while stack:
        entry, depth = stack.pop()
        yield entry
        if depth > MAX_FOLDER_DEPTH:
            problem = f"{folder} has more than {MAX_FOLDER_DEPTH} levels of folders"
            raise UserError(f"{problem}; give fewer", status=2)
        if entry.is_dir(follow_symlinks=False):
            stack += _list_backwards(entry, depth + 1)


def _list_backwards(
    folder: Path | os.DirEntry[str], depth: int
) -> list[tuple[os.DirEntry[str], int]]:
    names: list[os.DirEntry[str]] = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:  # removed meanwhile
        names = sorted(entries, key=lambda entry: entry.name, reverse=True)
    return [(entry, depth) for entry in names]


def refuse_links(folder: Path, suffixes: tuple[str, ...]) -> None:
    """Check that no link in a folder leads to another folder or to a file with these suffixes.

    Writing through such a link would change files elsewhere. Files with other suffixes are
    replaced as a whole, links included. A special file with such a suffix is refused too: a pipe
    would block. A hard link is replaced by a copy.

    Raises:
        UserError: the folder contains such a link or special file, or large hard links.
    """
    copied = 0
    for count, entry in enumerate(walk(folder), 1):
        path = Path(entry.path)
        if count > MAX_RUN_FILES:
            raise UserError(f"{folder} has more than {MAX_RUN_FILES:,} files; remove some")
        written = path.name.endswith(suffixes)
        if path.is_symlink() and (path.is_dir() or written):
            raise UserError(f"{path} is a symbolic link, which may lead out of {folder}; remove it")
        if written and not path.is_file() and not (suffixes == ("",) and path.is_dir()):
            raise UserError(f"{path} is not a regular file; remove it")
        if written and path.is_file() and path.stat().st_nlink > 1:
            copied += path.stat().st_size
            if copied > MAX_COPIED_BYTES:
                raise UserError(f"{path} is a hard link to a large file; replace it with a copy")
            # Replace it by a copy, so that writing to it does not change another file.
            with path.open("rb") as source, replacement(path) as copy:
                shutil.copyfileobj(source, copy)


def refuse_linked_folders(folder: Path, root: Path) -> None:
    """Check that the path from `root` to a folder contains no link.

    Raises:
        UserError: it contains a link.
    """
    for path in (folder, *folder.parents):
        if path == root:
            return
        if path.is_symlink():
            problem = f"{path} is a symbolic link, which may lead out of {root}"
            raise UserError(f"{problem}; use the path of its target instead")


def rename_damaged(path: Path, name: str = "") -> Path:
    """Rename a damaged file or folder to `NAME.damaged-N`, a new name; return the new path.

    `name` is its own name by default.
    """
    number = 1
    while os.path.lexists(renamed := path.with_name(f"{name or path.name}.damaged-{number}")):
        number += 1
    path.rename(renamed)
    return renamed


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        UserError: it is invalid, cannot be read, or exceeds a limit.
    """
    try:
        return parse_yaml(read_bounded(path, MAX_YAML_BYTES).decode("utf-8-sig"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        position = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        problem = str(error.problem)
        if "stream end" in problem or "end of stream" in problem:
            problem = "the file ends within a list, a mapping or a quoted text; close it"
        raise UserError(f"invalid YAML in {path}{position}: {problem}", status=2) from None
    except (OSError, LimitError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: {reason}", status=2) from None
    except (ValueError, yaml.YAMLError):
        raise UserError(f"{path} is not a text file", status=2) from None


def exists(name: str) -> bool:
    """Return whether an argument of a command is the path of an existing file or folder."""
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # the name is too long, or contains a zero byte
        return False


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with limits; below, it learns that 1e-3 is a number (text in YAML 1.1)."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.total, self.depth = 0, 0
        self.counts: dict[yaml.Node, int] = {}  # the number of values in each node

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node within the limits; an alias counts as often as it occurs."""
        if self.depth >= MAX_YAML_DEPTH:
            raise LimitError(f"it is nested more than {MAX_YAML_DEPTH} deep")
        before, is_alias = self.total, self.check_event(yaml.AliasEvent)
        self.depth += 1
        self.total += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        assert node is not None
        if isinstance(node, yaml.ScalarNode):
            self.total += len(node.value) // YAML_CHARS_PER_NODE
        if is_alias:  # infinite if it contains itself
            self.total = before + self.counts.get(node, MAX_YAML_NODES)
        else:
            _check_node(node)
            self.counts[node] = self.total - before
        if self.total > MAX_YAML_NODES:
            chars = MAX_YAML_NODES * YAML_CHARS_PER_NODE
            limit = f"{MAX_YAML_NODES:,} values, or {chars:,} characters"
            raise LimitError(f"with its aliases it has more than {limit}")
        return node

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """Return the tag of a node; a long plain scalar is text, whatever it looks like."""
        if kind is yaml.ScalarNode and len(value) > MAX_NUMBER_CHARS:
            implicit = (False, True)
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call] # PyYAML's


_Loader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(r"[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$", re.ASCII),
    list("-+0123456789."),
)


def parse_yaml(text: str) -> Any:
    """Parse YAML of at most `MAX_YAML_NODES` values, with its aliases expanded.

    Raises:
        yaml.YAMLError, ValueError: it is invalid.
        LimitError: it exceeds a limit.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except RecursionError:
        raise LimitError("it is nested too deeply") from None
    except (KeyError, IndexError, AttributeError, TypeError) as error:  # `!!bool maybe`
        raise yaml.YAMLError(f"a value does not match its tag: {error}") from None
    finally:
        loader.dispose()


def _check_node(node: yaml.Node) -> None:
    if node.tag not in _ALLOWED:  # a date, a set, bytes
        kind = node.tag.removeprefix(_TAG)
        raise yaml.MarkedYAMLError(
            problem=f"{kind} is not supported; put text in quotes", problem_mark=node.start_mark
        )
    if isinstance(node, yaml.MappingNode):
        # Hashes of numbers are predictable: many colliding keys take quadratic time.
        if sum(key.tag != f"{_TAG}str" for key, _ in node.value) > MAX_YAML_OTHER_KEYS:
            raise LimitError(
                f"a mapping has more than {MAX_YAML_OTHER_KEYS} keys that are not strings"
            )
        if any(len(key.value) > MAX_YAML_KEY_CHARS for key, _ in node.value):
            raise LimitError(f"a key has more than {MAX_YAML_KEY_CHARS} characters")
    elif node.tag in (f"{_TAG}int", f"{_TAG}float") and len(node.value) > MAX_NUMBER_CHARS:
        raise LimitError(f"it contains a number of more than {MAX_NUMBER_CHARS} characters")


def create_folder(folder: Path, option: str) -> None:
    """Create the folder of an option, and check that it is writable.

    Raises:
        UserError: it cannot be created, or is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{option} {folder}: {reason}; use another folder") from None
