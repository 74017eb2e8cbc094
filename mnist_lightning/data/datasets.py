"""The data sets by name: find, verify and load them as tensors."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist_lightning.data import idx, mnist_download
from mnist_lightning.data.download import DownloadError, Limits, download_any
from mnist_lightning.data.synthetic import draw_digits
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.files import refuse_linked_folders, refuse_links, remove
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


class Source(NamedTuple):
    """How to load and download a data set.

    `load` reads from disk and raises FileNotFoundError if the files are missing; `fetch` downloads
    and raises UserError. `val_share` is the default fraction of training images for validation.
    """

    description: str
    val_share: float
    load: Callable[[Path], DigitData]
    fetch: Callable[[Path], None]
    folder: str = ""
    has_checksums: bool = True  # of its files; otherwise only sizes and labels are checked


def _load_mnist(data_dir: Path) -> DigitData:
    return DigitData("mnist", *mnist_download.load(data_dir))


# The last 297 of the 1,797 images in file order are the test set: no randomness.
_DIGITS_TEST_SIZE = 297


def _load_digits(data_dir: Path) -> DigitData:
    """Return scikit-learn's 8x8 digits (UCI, Alpaydin and Kaynak, 1998) in MNIST's format."""
    images, labels = (torch.from_numpy(array.copy()) for array in _bundled_digits())
    split = len(images) - _DIGITS_TEST_SIZE
    return DigitData("digits", images[:split], labels[:split], images[split:], labels[split:])


@cache
def _bundled_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images (1797, 28, 28) and the labels; converting them takes 0.4 s."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    ink = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    images = np.stack([mnist_format.from_ink_unstretched(image) for image in ink])
    return images, bunch.target.astype(np.int64)


def _load_strokes(data_dir: Path) -> DigitData:
    parts = [draw_digits(count, seed) for seed, count in enumerate((2_000, 500))]
    return DigitData("strokes", *(torch.from_numpy(array) for part in parts for array in part))


def _fetch_nothing(data_dir: Path) -> None:
    """Do nothing: the data comes with scikit-learn, or is drawn."""


# EMNIST is one archive of 562 MB; the largest other archive has 26 MB.
_LIMITS = {"EMNIST": Limits(600_000_000, 7_200.0)}
_DEFAULT_LIMITS = Limits(100_000_000, 1_200.0)


class _TorchvisionFiles(NamedTuple):
    """The files of one of torchvision's MNIST-like data sets.

    Attributes:
        name: of the data set here.
        class_name: of the data set in torchvision, and of its folder.
        counts: the numbers of training images and test images.
    """

    name: str
    class_name: str
    counts: tuple[int, int]

    def load(self, data_dir: Path) -> DigitData:
        try:
            return self._read(data_dir)
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            raise self._damaged(data_dir, error) from None

    def fetch(self, data_dir: Path) -> None:
        from filelock import FileLock

        raw = data_dir / self.class_name / "raw"
        try:
            refuse_linked_folders(raw, data_dir)
            raw.mkdir(parents=True, exist_ok=True)
            refuse_links(raw, ("",))  # torchvision follows links when it extracts
            with FileLock(data_dir / f".{self.name}.lock"):
                # torchvision extracts all archives in it, and a tar file can write anywhere.
                remove(raw / "gzip")
                # torchvision's own download has no limit of time or size. It only extracts an
                # archive that is already there with the correct MD5.
                limits = _LIMITS.get(self.class_name, _DEFAULT_LIMITS)
                for file, md5, urls in _archives(self.class_name):
                    _fetch_archive(raw / file, md5, urls, limits)
                self._read(data_dir, download=True)
        except (OSError, RuntimeError, DownloadError) as error:
            raise mnist_download.FetchError(
                f"{self.name} could not be downloaded into {data_dir}: {_one_line(error)}"
            ) from None
        except Exception as error:
            raise self._damaged(data_dir, error) from None

    def _damaged(self, data_dir: Path, error: Exception) -> UserError:
        return mnist_download.DamagedError(
            f"the files of {self.name} in {data_dir / self.class_name} are damaged "
            f"({_one_line(error)}); delete that folder, then run: {PROGRAM} data {self.name} "
            f"--fetch --data.data_dir {data_dir}"
        )

    def _read(self, data_dir: Path, download: bool = False) -> DigitData:
        """Map the files into memory; download them first if `download`."""
        folder = data_dir / self.class_name
        if os.path.lexists(folder / "processed"):  # torchvision unpickles its files without a check
            problem = f"{folder / 'processed'} is from an old torchvision version"
            raise ValueError(f"{problem}, which is not supported")
        self._check_sizes(folder / "raw")
        if download:
            from torchvision import datasets

            split = {"split": "digits"} if self.name == "emnist_digits" else {}
            getattr(datasets, self.class_name)(data_dir, download=True, **split)
            self._check_sizes(folder / "raw")
        paths = [folder / "raw" / file for file in self._raw_sizes()]
        if not all(path.exists() for path in paths):
            raise FileNotFoundError(f"no {self.name} in {folder}")
        tensors = []
        for images_path, labels_path in zip(paths[::2], paths[1::2], strict=True):
            images = idx.read_images(images_path)
            labels = idx.read_labels(labels_path, len(images), classes=10)
            if self.name == "emnist_digits":  # its images are stored transposed
                images = images.transpose(1, 2).contiguous()
            tensors += [images, labels]
        return DigitData(self.name, *tensors)

    def _check_sizes(self, raw: Path) -> None:
        for file, size in self._raw_sizes().items():
            path = raw / file
            if path.exists() and not (path.is_file() and path.stat().st_size == size):
                raise ValueError(f"{file} is not a file of {size:,} bytes")

    def _raw_sizes(self) -> dict[str, int]:
        """Return the sizes in bytes of the extracted files.

        The format is IDX: 4 bytes, 4 for each dimension, and the elements.
        """
        own_names = {"qmnist": ("qmnist-", "test"), "emnist_digits": ("emnist-digits-", "test")}
        prefix, test = own_names.get(self.name, ("", "t10k"))
        sizes = {}
        for part, count in zip(("train", test), self.counts, strict=True):
            sizes[f"{prefix}{part}-images-idx3-ubyte"] = 16 + 784 * count
            if self.name == "qmnist":  # eight integers of 32 bits for each image
                sizes[f"{prefix}{part}-labels-idx2-int"] = 12 + 32 * count
            else:
                sizes[f"{prefix}{part}-labels-idx1-ubyte"] = 8 + count
        return sizes


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


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


def _fetch_archive(path: Path, md5: str, urls: Sequence[str], limits: Limits) -> None:
    """Download an archive, unless it is already there."""

    def move(part: Path) -> None:
        if _md5(part) != md5:
            raise DownloadError(f"wrong file: expected a file with MD5 {md5}")
        part.replace(path)

    if not (path.is_file() and path.stat().st_size <= limits.size and _md5(path) == md5):
        download_any(urls, path, limits, move)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


VAL_SHARE = 1 / 12  # 5,000 of MNIST's 60,000


def _torchvision_source(
    name: str, class_name: str, description: str, counts: tuple[int, int]
) -> Source:
    files = _TorchvisionFiles(name, class_name, counts)
    return Source(description, VAL_SHARE, files.load, files.fetch, class_name, False)


_TORCHVISION_SETS = [
    ("fashion_mnist", "FashionMNIST", "clothing, 60,000 + 10,000", (60_000, 10_000)),
    ("kmnist", "KMNIST", "cursive Japanese, 60,000 + 10,000", (60_000, 10_000)),
    ("qmnist", "QMNIST", "MNIST with all its 60,000 test digits", (60_000, 60_000)),
    ("emnist_digits", "EMNIST", "digits of NIST, 240,000 + 40,000", (240_000, 40_000)),
]
SourceName = Literal[
    "mnist", "fashion_mnist", "kmnist", "qmnist", "emnist_digits", "digits", "strokes"
]
NOT_DIGITS = ("fashion_mnist", "kmnist")  # images of ten other classes
SOURCES: dict[str, Source] = {
    "mnist": Source(
        "handwritten digits, 60,000 + 10,000", VAL_SHARE, _load_mnist, mnist_download.fetch, "MNIST"
    ),
    **{row[0]: _torchvision_source(*row) for row in _TORCHVISION_SETS},
    "digits": Source("bundled 8x8 digits, 1,500 + 297", 2 / 15, _load_digits, _fetch_nothing),
    "strokes": Source("synthetic digits, 2,000 + 500", 1 / 10, _load_strokes, _fetch_nothing),
}
