"""Read the data sets of a run: download what is missing, or use the bundled digits instead."""

import warnings
from pathlib import Path

from mnist_lightning.data.arguments import OWN_DATA
from mnist_lightning.data.datasets import SOURCES, DigitData
from mnist_lightning.data.mnist_download import FetchError
from mnist_lightning.data.own_data import load_own
from mnist_lightning.errors import PROGRAM, UserError


class FallbackWarning(UserWarning):
    """MNIST is not available; the bundled digits are used instead."""


class SkippedWarning(UserWarning):
    """Some files in a folder of images are not images of a digit."""


class DatasetReader:
    """Reads data sets by name.

    Args:
        data_dir: a torchvision root.
        folder: the folder of your own data, if any.
        test_share: fraction of your own images for testing.
    """

    def __init__(self, data_dir: Path, folder: Path | None, test_share: float) -> None:
        self.data_dir = data_dir
        self.folder = folder
        self.test_share = test_share
        self.fallback_reason: str | None = None  # why the bundled digits are used
        self.skipped: str | None = None  # a notice about skipped files
        self._missing_reason: str | None = None
        self._prepared: dict[str, DigitData] = {}

    def prepare(self, name: str) -> None:
        """Download a data set if it is missing; read own images.

        Raises:
            UserError: it is damaged, or it is strict and not available.
        """
        if name in OWN_DATA:
            self._prepared[name] = self.read(name)
            return
        source = SOURCES["mnist" if name == "auto" else name]
        try:
            self._prepared.setdefault(name, source.load(self.data_dir))
        except FileNotFoundError as missing:
            try:
                source.fetch(self.data_dir)
            except FetchError as error:
                self._missing_reason = f"{missing}; {error}"
                if name != "auto":
                    raise UserError(f"{self._missing_reason}; {_remedy(name)}") from None

    def read(self, name: str) -> DigitData:
        """Read a data set.

        Raises:
            UserError: it is damaged, or it is strict and not available.
        """
        if name in self._prepared:
            return self._prepared.pop(name)
        if self.folder is not None and name in OWN_DATA:
            data, self.skipped = load_own(name, self.folder, self.test_share)
            if self.skipped is not None:
                warnings.warn(self.skipped, SkippedWarning, stacklevel=4)
            return data
        try:
            return SOURCES["mnist" if name == "auto" else name].load(self.data_dir)
        except FileNotFoundError as missing:
            if name != "auto":
                raise UserError(f"{missing}; {_remedy(name)}") from None
            self.fallback_reason = f"{self._missing_reason or missing}; {_remedy(name)}"
            warnings.warn(
                f"using the bundled digits instead of MNIST: {self.fallback_reason}",
                FallbackWarning,
                stacklevel=4,
            )
            return SOURCES["digits"].load(self.data_dir)


def _remedy(name: str) -> str:
    return (
        f"with network access, download it: {PROGRAM} data {'mnist' if name == 'auto' else name} "
        "--fetch; or set --data.data_dir to a folder that torchvision downloaded to"
    )
