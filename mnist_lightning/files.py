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
from pathlib import Path
from typing import Any

import yaml

from mnist_lightning.errors import UserError

# A configuration has 3 kB and 150 values, ten deep.
MAX_YAML_BYTES = 300_000
MAX_YAML_NODES = 20_000
MAX_YAML_DEPTH = 100
MAX_YAML_NUMBERS = 256  # keys of a mapping that are no texts
MAX_FOLDER_DEPTH = 50
MAX_NUMBER_LENGTH = 100  # 1:1:1:… is a number in base 60, and takes quadratic time
_TAG = "tag:yaml.org,2002:"
_NUMBERS = (f"{_TAG}int", f"{_TAG}float")
_PLAIN = {_TAG + name for name in ("map", "seq", "str", "int", "float", "bool", "null", "merge")}


class LimitError(Exception):
    """A file exceeds a limit that keeps its reading within time and memory."""


def write_atomically(content: bytes, path: Path) -> None:
    """Write a file so that `path` holds either all of `content` or what it held before.

    The new file is made beside its target, flushed to the disk, and then renamed.
    """
    # An unpredictable name, so that no link with it can exist.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:  # a full disk says neither which nor where
        raise type(error)(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def read_bounded(path: Path, limit: float = math.inf) -> bytes:
    """Read a regular file of at most `limit` bytes; never wait for a pipe.

    Raises:
        UserError: it is larger.
        OSError: it cannot be read, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if math.isinf(limit):
            return file.read()
        # /proc tells no sizes.
        content = b"" if status.st_size > limit else file.read(int(limit) + 1)
        if max(status.st_size, len(content)) > limit:
            raise UserError(f"{path} is too large: the limit is {limit:,.0f} bytes")
        return content


def walk(folder: Path) -> Iterator[Path]:
    """List the files and folders below a folder, in order; links to folders are not followed.

    Raises:
        UserError: the folders are nested too deeply.
    """
    waiting = [(folder, 0)] if folder.is_dir() else []
    while waiting:
        path, depth = waiting.pop()
        if depth > 0:
            yield path
        if depth > MAX_FOLDER_DEPTH:
            raise UserError(f"{folder}: folders are nested more than {MAX_FOLDER_DEPTH} deep", 2)
        if depth == 0 or (path.is_dir() and not path.is_symlink()):
            waiting += [(inner, depth + 1) for inner in sorted(path.iterdir(), reverse=True)]


def refuse_links(folder: Path, suffixes: tuple[str, ...]) -> None:
    """Refuse to write through a link, which may lead anywhere: to a folder, or to such a file.

    Files with other suffixes are replaced as a whole, with the link. What has such a suffix and is
    no regular file is refused too: a pipe would be waited for. A hard link becomes a copy.

    Raises:
        UserError: there is one in the folder.
    """
    for path in walk(folder):
        written = path.name.endswith(suffixes)
        if path.is_symlink() and (path.is_dir() or written):
            raise UserError(f"{path} is a link out of {folder}; remove it")
        if written and not path.is_file() and not (suffixes == ("",) and path.is_dir()):
            raise UserError(f"{path} is not a regular file; remove it")
        if written and path.is_file() and path.stat().st_nlink > 1:
            _break_hard_link(path)


def refuse_linked_folders(folder: Path, root: Path) -> None:
    """Refuse a folder below `root` that is reached by a link.

    Raises:
        UserError: it is.
    """
    for path in (folder, *folder.parents):
        if path == root:
            return
        if path.is_symlink():
            raise UserError(f"{path} is a link out of {root}; name the folder that it leads to")


def _break_hard_link(path: Path) -> None:
    """Replace a file by a copy, so that writing to it changes no other file."""
    copy = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with path.open("rb") as source, copy.open("xb") as target:
            shutil.copyfileobj(source, target)
        copy.replace(path)
    finally:
        copy.unlink(missing_ok=True)


def move_aside(path: Path) -> Path:
    """Rename a damaged file or folder, never over another; return its new name."""
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.damaged-{number}")):
        number += 1
    path.rename(aside)
    return aside


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        UserError: it is none, cannot be read, or exceeds a limit.
    """
    try:
        return parse_yaml(read_bounded(path, MAX_YAML_BYTES).decode("utf-8-sig"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        raise UserError(f"{path} is no YAML{where}: {error.problem}", status=2) from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}", status=2) from None
    except LimitError as error:
        raise UserError(f"{path}: {error}", status=2) from None
    except (ValueError, yaml.YAMLError):
        raise UserError(f"{path} is no text", status=2) from None


def exists(name: str) -> bool:
    """Tell whether a word of a command names something that exists."""
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long a name, or one with a zero byte
        return False


class _Loader(yaml.SafeLoader):
    """PyYAML's, which takes 1e-3 for text, as YAML 1.1 does; it stops at the limits."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.nodes, self.depth = 0, 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node, if it is not one too many."""
        self.nodes += 1
        if self.nodes > MAX_YAML_NODES:
            raise LimitError(f"it has more than {MAX_YAML_NODES:,} values")
        if self.depth >= MAX_YAML_DEPTH:
            raise LimitError(f"it is nested more than {MAX_YAML_DEPTH} deep")
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(r"[-+]?(\d[\d_]*\.?|\.\d)[\d_]*[eE][-+]?\d+", re.ASCII),
    list("-+0123456789."),
)


def parse_yaml(text: str) -> Any:
    """Parse YAML; aliases and nesting cannot make it more than `MAX_YAML_NODES` values.

    Raises:
        yaml.YAMLError, ValueError: it is none.
        LimitError: it exceeds a limit.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count_nodes(node, {}, 0)
        return loader.construct_document(node)
    except RecursionError:
        raise LimitError("it is nested too deeply") from None
    except (KeyError, IndexError, AttributeError, TypeError) as error:  # `!!bool maybe`
        raise yaml.YAMLError(f"a value is not of its tag: {error}") from None
    finally:
        loader.dispose()


def _count_nodes(node: yaml.Node, counted: dict[yaml.Node, int], depth: int) -> int:
    """Count the values of a node, those of an alias as often as it occurs."""
    if depth > MAX_YAML_DEPTH:  # or an alias within what it stands for
        raise LimitError(f"it is nested more than {MAX_YAML_DEPTH} deep")
    if node in counted:
        return counted[node]
    if node.tag not in _PLAIN:  # a date, a set, bytes
        kind = node.tag.removeprefix(_TAG)
        raise yaml.MarkedYAMLError(
            problem=f"{kind} has no place here; put a text in quotes", problem_mark=node.start_mark
        )
    count = 1
    if isinstance(node, yaml.MappingNode):
        # Numbers have known hashes: a mapping of many that are alike takes quadratic time.
        if sum(key.tag != f"{_TAG}str" for key, _ in node.value) > MAX_YAML_NUMBERS:
            raise LimitError(
                f"a mapping has more than {MAX_YAML_NUMBERS} keys that are not strings"
            )
        children = [each for pair in node.value for each in pair]
    else:
        children = node.value if isinstance(node, yaml.SequenceNode) else []
    for child in children:
        count += _count_nodes(child, counted, depth + 1)
        if count > MAX_YAML_NODES:
            raise LimitError(f"with its aliases it has more than {MAX_YAML_NODES:,} values")
    if not children and node.tag in _NUMBERS and len(node.value) > MAX_NUMBER_LENGTH:
        raise LimitError(f"it has a number of more than {MAX_NUMBER_LENGTH} characters")
    counted[node] = count
    return count


def make_folder(folder: Path, option: str) -> None:
    """Make the folder that an option names, and find out whether files can be written to it.

    Raises:
        UserError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{option} {folder}: {reason}; name another folder") from None


def _flush_folder(folder: Path) -> None:
    """Bring a renaming to the disk: the name is the folder's, not the file's."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
