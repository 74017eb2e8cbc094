"""MNIST's four files in torchvision's layout: find, verify and download them.

A file is intact if the SHA-256 of its uncompressed content is correct. It may be raw or `.gz`.
Nothing is written except by a download.
"""

import hashlib
import threading
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist_lightning.data import idx
from mnist_lightning.data.download import DownloadError, Limits, describe_error, download_any
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.files import refuse_linked_folders, write_atomically

# Length and SHA-256 of the uncompressed content of each file.
FILES = {
    "train-images-idx3-ubyte": (
        47_040_016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": (
        60_008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte": (
        7_840_016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": (
        10_008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
# The same four .gz files on independent hosts: PyTorch's copy, the CVDF's, the original.
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
# A host without a response in this time counts as unavailable, so that a machine without a network
# fails within seconds (name lookups have no timeout).
RESPONSE_SECONDS = 6.0
# The largest of the four files has 9.9 MB as `.gz`. At 30 kB/s it takes 5 minutes.
MAX_COMPRESSED_BYTES = 20_000_000
MAX_SECONDS = 600.0
GZIP = 16 + zlib.MAX_WBITS  # a gzip header and one stream


class DamagedError(UserError):
    """A file of a data set has the wrong content."""


class FetchError(UserError):
    """A data set could not be downloaded."""


def raw_folder(data_dir: Path) -> Path:
    """Return the folder of MNIST's files in torchvision's layout."""
    return data_dir / "MNIST" / "raw"


def _content(path: Path, size: int) -> NDArray[np.uint8]:
    """Map a file into memory, or decompress a `.gz` up to `size` + 1 bytes."""
    if path.suffix != ".gz":
        return idx.map_file(path)
    with path.open("rb") as file:
        data = file.read(MAX_COMPRESSED_BYTES + 1)
    if len(data) > MAX_COMPRESSED_BYTES:
        raise DamagedError(f"{path} is damaged: more than {MAX_COMPRESSED_BYTES:,} bytes")
    decompressor = zlib.decompressobj(GZIP)
    try:
        content = decompressor.decompress(data, size + 1)
    except zlib.error as error:
        raise DamagedError(f"{path} is damaged: {error}") from None
    if decompressor.unused_data:
        raise DamagedError(f"{path} is damaged: extra bytes after its end")
    return np.frombuffer(bytearray(content), np.uint8)


def verified_content(path: Path, name: str) -> NDArray[np.uint8]:
    """Read the file `name` at `path`, raw or `.gz`, and check it.

    Raises:
        DamagedError: its size or its content is wrong.
    """
    expected_size, expected_digest = FILES[name]
    content = _content(path, expected_size)
    if len(content) != expected_size:
        size = "more" if len(content) > expected_size else f"{len(content):,} bytes"
        raise DamagedError(f"{path} is damaged: {size}, expected {expected_size:,}")
    digest = hashlib.sha256(content.data).hexdigest()
    if digest != expected_digest:
        raise DamagedError(
            f"{path} is not MNIST's file: its SHA-256 is {digest[:12]}…, "
            f"expected {expected_digest[:12]}…"
        )
    return content


def read(data_dir: Path, name: str) -> NDArray[np.uint8]:
    """Return the verified content of one of the four files, from the first intact copy.

    Raises:
        FileNotFoundError: there is no copy.
        DamagedError: every copy is damaged.
    """
    damage = None
    folders = (raw_folder(data_dir), data_dir)
    paths = (folder / f"{name}{ending}" for folder in folders for ending in ("", ".gz"))
    for path in filter(Path.is_file, paths):
        try:
            return verified_content(path, name)
        except DamagedError as error:
            damage = error
    if damage is None:
        raise FileNotFoundError(f"no {name} in {raw_folder(data_dir)}")
    option = "" if data_dir == Path("data") else f" --data.data_dir {data_dir}"
    raise DamagedError(f"{damage}; replace it: {PROGRAM} data mnist --fetch{option}")


def load(data_dir: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return training images (60000, 28, 28) and labels, test images (10000, 28, 28) and labels.

    Images are uint8, 0 for background and 255 for ink; labels are int64.
    """
    arrays = (torch.from_numpy(idx.parse(read(data_dir, name))) for name in FILES)
    images, labels, test_images, test_labels = arrays
    return images, labels.long(), test_images, test_labels.long()


def fetch(data_dir: Path, mirrors: Sequence[str] = MIRRORS) -> None:
    """Download those of the four files that are missing or damaged.

    If two processes call this at once, the second waits and then finds the files.

    Raises:
        FetchError: the folder is not writable, or no mirror returned the correct content.
    """
    from filelock import FileLock

    folder = raw_folder(data_dir)
    try:
        refuse_linked_folders(folder, data_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            missing = [name for name in FILES if not _is_intact(data_dir, name)]
            if missing:
                available = _available_mirrors(mirrors, f"{missing[0]}.gz")
                limits = Limits(MAX_COMPRESSED_BYTES, MAX_SECONDS)
                for name in missing:
                    urls = [f"{mirror}{name}.gz" for mirror in available]
                    download_any(urls, folder / f"{name}.gz", limits, partial(_store, name, folder))
    except DownloadError as error:
        raise FetchError(f"MNIST could not be downloaded; {error}") from None
    except OSError as error:
        raise FetchError(f"cannot write to {folder}: {error.strerror or error}") from None


def _store(name: str, folder: Path, compressed: Path) -> None:
    write_atomically(verified_content(compressed, name).tobytes(), folder / name)


def _is_intact(data_dir: Path, name: str) -> bool:
    with suppress(FileNotFoundError, DamagedError):
        read(data_dir, name)
        return True
    return False


def _available_mirrors(mirrors: Sequence[str], file: str) -> list[str]:
    """Return the mirrors that have `file`, in their order; check all in parallel."""
    import requests

    reasons = dict.fromkeys(mirrors, f"no response in {RESPONSE_SECONDS:.0f} s")

    def probe(mirror: str) -> None:
        try:
            response = requests.head(mirror + file, timeout=RESPONSE_SECONDS, allow_redirects=True)
            reasons[mirror] = "" if response.ok else f"HTTP {response.status_code}"
        except requests.RequestException as error:
            reasons[mirror] = describe_error(error)

    threads = [threading.Thread(target=probe, args=(mirror,), daemon=True) for mirror in mirrors]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + RESPONSE_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    available = [mirror for mirror in mirrors if not reasons[mirror]]
    if not available:
        attempts = "; ".join(f"{mirror} ({reason})" for mirror, reason in reasons.items())
        raise DownloadError(f"tried {attempts}")
    return available
