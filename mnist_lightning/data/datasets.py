"""The data sets by name: find, verify and load them as tensors."""

import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mnist_lightning.data import mnist_download
from mnist_lightning.data.download import DownloadError, Limits, download
from mnist_lightning.data.synthetic import draw_digits
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.files import refuse_linked_folders, refuse_links
from mnist_lightning.preprocessing import mnist_format


@dataclass(frozen=True)
class DigitData:
    """A data set in memory: images (N, 28, 28) uint8, 0 for paper; labels (N,) int64."""

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @cached_property
    def checksum(self) -> str:
        """Return the SHA-256 of all pixels and labels, in hexadecimal."""
        digest = hashlib.sha256()
        for tensor in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(tensor.to(torch.uint8).numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Source:
    """How to load and download a data set.

    `load` reads from disk and raises FileNotFoundError if the files are missing; `fetch` downloads
    and raises UserError. `val_share` is the default fraction of training images for validation.
    """

    description: str
    val_share: float
    load: Callable[[Path], DigitData]
    fetch: Callable[[Path], None]
    folder: str = ""


def _load_mnist(data_dir: Path) -> DigitData:
    return DigitData("mnist", *mnist_download.load(data_dir))


# The last 297 of the 1,797 images in file order are the test set: no randomness.
_DIGITS_TEST_SIZE = 297


def _load_digits(data_dir: Path) -> DigitData:
    """Return scikit-learn's 8x8 digits (UCI, Alpaydin and Kaynak, 1998) in MNIST's format."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    ink = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    images = torch.from_numpy(np.stack([mnist_format.from_ink_unstretched(image) for image in ink]))
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    split = len(images) - _DIGITS_TEST_SIZE
    return DigitData("digits", images[:split], labels[:split], images[split:], labels[split:])


def _load_strokes(data_dir: Path) -> DigitData:
    parts = [draw_digits(count, seed) for seed, count in enumerate((2_000, 500))]
    return DigitData("strokes", *(torch.from_numpy(array) for part in parts for array in part))


def _fetch_nothing(data_dir: Path) -> None:
    """Do nothing: the data comes with scikit-learn, or is drawn."""


def _raw_sizes(name: str, counts: tuple[int, int]) -> dict[str, int]:
    """Return the sizes in bytes of the extracted files of a torchvision data set.

    The format is IDX: 4 bytes, 4 for each dimension, and the elements.
    """
    test = "test" if name in ("qmnist", "emnist_digits") else "t10k"
    prefix = {"qmnist": "qmnist-", "emnist_digits": "emnist-digits-"}.get(name, "")
    sizes: dict[str, int] = {}
    for part, count in zip(("train", test), counts, strict=True):
        sizes[f"{prefix}{part}-images-idx3-ubyte"] = 16 + 784 * count
        if name == "qmnist":  # eight integers of 32 bits for each image
            sizes[f"{prefix}{part}-labels-idx2-int"] = 12 + 32 * count
        else:
            sizes[f"{prefix}{part}-labels-idx1-ubyte"] = 8 + count
    return sizes


def _read_torchvision(
    name: str, class_name: str, counts: tuple[int, int], data_dir: Path, download: bool = False
) -> DigitData:
    """Read one of torchvision's MNIST-like data sets; download it first if `download`."""
    from torchvision import datasets

    arguments: dict[bool, dict[str, object]] = {True: {"train": True}, False: {"train": False}}
    if name == "emnist_digits":
        arguments = {train: {"train": train, "split": "digits"} for train in (True, False)}
    dataset_class = getattr(datasets, class_name)
    processed = data_dir / class_name / "processed"
    if os.path.lexists(processed):  # torchvision unpickles its files without a check
        raise ValueError(f"{processed} is from an old torchvision and is not read")
    raw = data_dir / class_name / "raw"
    for file, size in _raw_sizes(name, counts).items():  # torchvision reads whole files
        path = raw / file
        if path.exists() and (not path.is_file() or path.stat().st_size != size):
            raise ValueError(f"{file} is not a file of {size:,} bytes")
    parts = [
        dataset_class(root=data_dir, download=download, **arguments[train])
        for train in (True, False)
    ]
    tensors = []
    for part in parts:
        images, labels = part.data, part.targets
        if name == "qmnist":  # QMNIST's targets contain the writer and more; column 0 is the class
            labels = labels[:, 0]
        if name == "emnist_digits":  # EMNIST's images are stored transposed
            images = images.transpose(1, 2).contiguous()
        valid = images.dtype == torch.uint8 and images.shape[1:] == (28, 28)
        if not valid or labels.ndim != 1 or labels.min() < 0 or labels.max() > 9:
            raise ValueError("expected 28x28 images with labels from 0 to 9")
        tensors += [images, labels.long()]
    return DigitData(name, *tensors)


def _load_torchvision(
    name: str, class_name: str, counts: tuple[int, int], data_dir: Path
) -> DigitData:
    try:
        data = _read_torchvision(name, class_name, counts, data_dir)
    except Exception as error:  # torchvision does not check for damage
        if isinstance(error, RuntimeError) and "not found" in str(error):
            raise FileNotFoundError(f"no {name} in {data_dir / class_name}") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _damaged(name, class_name, data_dir, reason) from None
    sizes = len(data.train_images), len(data.test_images)
    if sizes != counts or sizes != (len(data.train_labels), len(data.test_labels)):
        raise _damaged(name, class_name, data_dir, f"{sizes[0]:,} + {sizes[1]:,} images")
    return data


def _damaged(name: str, class_name: str, data_dir: Path, reason: object) -> UserError:
    folder = data_dir / class_name
    return mnist_download.DamagedError(
        f"the files of {name} in {folder} are damaged ({reason}); delete that folder, then run: "
        f"{PROGRAM} data {name} --fetch --data.data_dir {data_dir}"
    )


def _fetch_torchvision(name: str, class_name: str, counts: tuple[int, int], data_dir: Path) -> None:
    from filelock import FileLock

    raw = data_dir / class_name / "raw"
    try:
        refuse_linked_folders(raw, data_dir)
        raw.mkdir(parents=True, exist_ok=True)
        refuse_links(raw, ("",))  # torchvision follows links when it extracts
        with FileLock(data_dir / f".{name}.lock"):
            # torchvision's own download has no limit of time or size. It only extracts an archive
            # that is already there with the correct MD5.
            for file, md5, urls in _archives(class_name):
                _fetch_archive(raw / file, md5, urls)
            _read_torchvision(name, class_name, counts, data_dir, download=True)
    except (OSError, RuntimeError, DownloadError) as error:
        raise mnist_download.FetchError(
            f"{name} could not be downloaded into {data_dir}: {' '.join(str(error).split())}"
        ) from None


# EMNIST is one archive of 562 MB; the largest other archive has 26 MB.
_LIMITS = {"EMNIST": (600_000_000, 7_200.0)}
_DEFAULT_LIMITS = (100_000_000, 1_200.0)


def _archives(class_name: str) -> list[tuple[str, str, list[str]]]:
    """Return the archives of a torchvision data set: file name, MD5 and URLs."""
    from torchvision import datasets

    cls = getattr(datasets, class_name)
    if class_name == "EMNIST":
        return [(Path(cls.url).name, cls.md5, [cls.url])]
    if class_name == "QMNIST":
        resources = [*cls.resources["train"], *cls.resources["test"]]
        return [(Path(url).name, md5, [url]) for url, md5 in resources]
    return [(file, md5, [f"{url}{file}" for url in cls.mirrors]) for file, md5 in cls.resources]


def _fetch_archive(path: Path, md5: str, urls: Sequence[str]) -> None:
    """Download an archive, unless it is already there.

    Raises:
        DownloadError: no URL returned the correct content.
    """
    class_name = path.parent.parent.name
    limits = Limits(*_LIMITS.get(class_name, _DEFAULT_LIMITS), mnist_download.READ_SECONDS)
    if path.is_file() and path.stat().st_size <= limits.size and _has_md5(path, md5):
        return
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    reasons = []
    try:
        for url in urls:
            try:
                download(url, part, limits)
            except DownloadError as error:
                reasons.append(f"{url} ({error})")
                part.unlink(missing_ok=True)
                continue
            if _has_md5(part, md5):
                part.replace(path)
                return
            reasons.append(f"{url} (wrong file: its MD5 is not {md5})")
            part.unlink()
    finally:
        part.unlink(missing_ok=True)
    raise DownloadError(f"tried {'; '.join(reasons)}")


def _has_md5(path: Path, md5: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == md5


VAL_SHARE = 1 / 12  # 5,000 of MNIST's 60,000


def _torchvision_source(
    name: str, class_name: str, description: str, sizes: tuple[int, int]
) -> Source:
    return Source(
        description,
        VAL_SHARE,
        partial(_load_torchvision, name, class_name, sizes),
        partial(_fetch_torchvision, name, class_name, sizes),
        class_name,
    )


SOURCES = {
    "mnist": Source(
        "handwritten digits, 60,000 + 10,000", VAL_SHARE, _load_mnist, mnist_download.fetch, "MNIST"
    ),
    "fashion_mnist": _torchvision_source(
        "fashion_mnist", "FashionMNIST", "clothing, 60,000 + 10,000", (60_000, 10_000)
    ),
    "kmnist": _torchvision_source(
        "kmnist", "KMNIST", "cursive Japanese, 60,000 + 10,000", (60_000, 10_000)
    ),
    "qmnist": _torchvision_source(
        "qmnist", "QMNIST", "MNIST with all its 60,000 test digits", (60_000, 60_000)
    ),
    "emnist_digits": _torchvision_source(
        "emnist_digits", "EMNIST", "digits of NIST, 240,000 + 40,000", (240_000, 40_000)
    ),
    "digits": Source("embedded 8x8 digits, 1,500 + 297", 2 / 15, _load_digits, _fetch_nothing),
    "strokes": Source("synthetic digits, 2,000 + 500", 1 / 10, _load_strokes, _fetch_nothing),
}
