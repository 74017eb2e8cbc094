"""A PyTorch Lightning experiment framework for handwritten digits.

The public names are imported on first use, so that `import mnist_lightning` (and therefore
`python -m mnist_lightning --help`) is fast.
"""

# Before any other import: `python -m` puts the working directory first on the search path.
import os
import sys

if sys.argv[:1] == ["-m"] and os.path.realpath(sys.path[0] or ".") == os.path.realpath("."):
    del sys.path[0]

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mnist_lightning.errors import UserError, __version__

if TYPE_CHECKING:
    from mnist_lightning.data.datamodule import MNISTDataModule
    from mnist_lightning.inference import Recognizer, load
    from mnist_lightning.training.lightning_module import DigitClassifier

__all__ = ["DigitClassifier", "MNISTDataModule", "Recognizer", "UserError", "__version__", "load"]

_MODULES = {
    "DigitClassifier": "mnist_lightning.training.lightning_module",
    "MNISTDataModule": "mnist_lightning.data.datamodule",
    "Recognizer": "mnist_lightning.inference",
    "load": "mnist_lightning.inference",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'mnist_lightning' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
