"""MNIST's four files in torchvision's layout: find, verify and download them.

A file counts as MNIST's when the SHA-256 of its uncompressed content says so; whether it lies
there raw or as `.gz` does not matter, and nothing is ever written unless it has to be fetched.
"""

import hashlib
import queue
import secrets
import threading
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mnist_lightning.data.download import DownloadError, Limits, download, reason_of
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.files import refuse_linked_folders, write_atomically


class File(NamedTuple):
    """Length and SHA-256 of a file's uncompressed content."""

    size: int
    sha256: str


FILES = {
    "train-images-idx3-ubyte": File(
        47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
    ),
    "train-labels-idx1-ubyte": File(
        60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
    ),
    "t10k-images-idx3-ubyte": File(
        7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    ),
    "t10k-labels-idx1-ubyte": File(
        10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
    ),
}
# The same four .gz files on independent hosts: PyTorch's copy, the CVDF's, the original.
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
# A host that has not answered by then is taken as absent, so that a machine without a network
# learns it within seconds (name look-ups have no time-out of their own).
ANSWER_SECONDS = 6.0
READ_SECONDS = 20.0
# The largest of the four files has 9.9 MB as `.gz`. At 30 kB/s it takes 5 minutes.
MAX_PACKED_BYTES = 20_000_000
MAX_SECONDS = 600.0
GZIP = 16 + zlib.MAX_WBITS  # a header of gzip, and one stream


class DamagedError(UserError):
    """A file of a data set has other content than it should."""


class FetchError(UserError):
    """A data set could not be downloaded."""


def raw_folder(data_dir: Path) -> Path:
    """Where torchvision keeps MNIST's files."""
    return data_dir / "MNIST" / "raw"


def _candidates(data_dir: Path, name: str) -> list[Path]:
    folders = (raw_folder(data_dir), data_dir)
    return [folder / f"{name}{ending}" for folder in folders for ending in ("", ".gz")]


def _content(path: Path, size: int) -> bytes:
    """Read a file, and decompress a `.gz`, up to one byte more than `size`."""
    packed = path.suffix == ".gz"
    with path.open("rb") as file:
        data = file.read((MAX_PACKED_BYTES if packed else size) + 1)
    if not packed:
        return data
    if len(data) > MAX_PACKED_BYTES:
        raise DamagedError(f"{path} is damaged: more than {MAX_PACKED_BYTES:,} bytes")
    unpacker = zlib.decompressobj(GZIP)
    try:
        content = unpacker.decompress(data, size + 1)
    except zlib.error as error:
        raise DamagedError(f"{path} is damaged: {error}") from None
    if unpacker.unused_data:
        raise DamagedError(f"{path} is damaged: something follows its end")
    return content


def verified_content(path: Path, name: str) -> bytes:
    """Read the file `name` at `path`, raw or `.gz`, and check it.

    Raises:
        DamagedError: it is shorter, longer or other than MNIST's.
    """
    expected = FILES[name]
    content = _content(path, expected.size)
    if len(content) != expected.size:
        found = "more" if len(content) > expected.size else f"{len(content):,} bytes"
        raise DamagedError(f"{path} is damaged: {found} where MNIST's file has {expected.size:,}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected.sha256:
        raise DamagedError(
            f"{path} is not MNIST's file: its SHA-256 is {digest[:12]}…, "
            f"MNIST's is {expected.sha256[:12]}…"
        )
    return content


def read(data_dir: Path, name: str) -> bytes:
    """The verified content of one of the four files: of the first whole copy in `data_dir`.

    Raises:
        FileNotFoundError: it is not there.
        DamagedError: all that is there is damaged.
    """
    damage = None
    for path in _candidates(data_dir, name):
        if path.is_file():
            try:
                return verified_content(path, name)
            except DamagedError as error:
                damage = error
    if damage is not None:
        raise DamagedError(
            f"{damage}; replace it: {PROGRAM} data mnist --fetch"
            f"{'' if data_dir == Path('data') else f' --data.data_dir {data_dir}'}"
        )
    raise FileNotFoundError(f"no {name} in {raw_folder(data_dir)}")


def load(data_dir: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images (60000, 28, 28) and labels, test images (10000, 28, 28) and labels.

    Images are uint8, 0 for paper and 255 for ink; labels int64.
    """
    images, labels, test_images, test_labels = (_parse(read(data_dir, name)) for name in FILES)
    return images, labels, test_images, test_labels


def _parse(content: bytes) -> Tensor:
    # IDX: two zero bytes, the element type (8: unsigned byte), the number of dimensions, then
    # each dimension as a big-endian 32-bit number; the elements follow. The content is verified.
    dimensions = content[3]
    shape = np.frombuffer(content, dtype=">i4", count=dimensions, offset=4)
    pixels = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dimensions)
    array = torch.from_numpy(pixels.reshape(shape).copy())
    return array if dimensions > 1 else array.long()


def fetch(data_dir: Path, mirrors: Sequence[str] = MIRRORS) -> None:
    """Download those of the four files that are missing or damaged.

    Two processes may do this at once: the second waits and finds the files there.

    Raises:
        FetchError: the folder cannot be written, or no mirror gave the right content.
    """
    from filelock import FileLock

    folder = raw_folder(data_dir)
    try:
        refuse_linked_folders(folder, data_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            missing = [name for name in FILES if not _is_whole(data_dir, name)]
            if missing:
                answering = _answering(mirrors, f"{missing[0]}.gz")
                for name in missing:
                    _fetch_file(name, folder, answering)
    except OSError as error:
        raise FetchError(f"cannot write to {folder}: {error.strerror or error}") from None


def _is_whole(data_dir: Path, name: str) -> bool:
    try:
        read(data_dir, name)
    except (FileNotFoundError, DamagedError):
        return False
    return True


def _answering(mirrors: Sequence[str], file: str) -> list[str]:
    """Those of `mirrors` that have `file`, in their order; asked all at once."""
    import requests

    answers: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()

    def ask(mirror: str) -> None:
        try:
            reply = requests.head(mirror + file, timeout=ANSWER_SECONDS, allow_redirects=True)
            answers.put((mirror, None if reply.ok else f"HTTP {reply.status_code}"))
        except requests.RequestException as error:
            answers.put((mirror, reason_of(error)))

    for mirror in mirrors:
        threading.Thread(target=ask, args=(mirror,), daemon=True).start()
    reasons = dict.fromkeys(mirrors, f"no answer in {ANSWER_SECONDS:.0f} s")
    found: set[str] = set()
    deadline = time.monotonic() + ANSWER_SECONDS
    for _ in mirrors:
        try:
            mirror, reason = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if reason is None:
            found.add(mirror)
        else:
            reasons[mirror] = reason
    if not found:
        raise FetchError(_failure(reasons))
    return [mirror for mirror in mirrors if mirror in found]


def _fetch_file(name: str, folder: Path, mirrors: Sequence[str]) -> None:
    packed = folder / f".{name}.{secrets.token_hex(8)}.gz"
    limits = Limits(MAX_PACKED_BYTES, MAX_SECONDS, READ_SECONDS)
    reasons = {}
    for mirror in mirrors:
        try:
            download(f"{mirror}{name}.gz", packed, limits)
            write_atomically(verified_content(packed, name), folder / name)
            return
        except (DownloadError, DamagedError) as error:
            reasons[mirror] = str(error)
        finally:
            packed.unlink(missing_ok=True)
    raise FetchError(_failure(reasons))


def _failure(reasons: dict[str, str]) -> str:
    tried = "; ".join(f"{mirror} ({reason})" for mirror, reason in reasons.items())
    return f"MNIST could not be downloaded; tried {tried}"
