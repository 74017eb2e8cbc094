"""Check the arguments of the data module."""

from collections.abc import Mapping
from typing import Any, Literal

from mnist_lightning.data.augmentations import check_value
from mnist_lightning.data.datasets import SOURCES, SourceName

DatasetName = Literal["auto", "folder", "idx"] | SourceName
OWN_DATA = ("folder", "idx")  # data sets in the folder of the argument `folder`
_MINIMUM = {"batch_size": 1, "eval_batch_size": 1, "val_size": 0, "num_workers": 0, "seed": 0}


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Check the arguments of `MNISTDataModule`, by name.

    Raises:
        ValueError: one is invalid.
    """
    dataset, extra = arguments["dataset"], arguments["extra"]
    known = ["auto", *OWN_DATA, *SOURCES]
    if dataset not in known:
        raise ValueError(f"unknown data set {dataset!r}; expected {', '.join(known)}")
    if (dataset in OWN_DATA) != (arguments["folder"] is not None):
        kind = dataset if dataset in OWN_DATA else "folder"
        raise ValueError(f"your own images need both --data.dataset {kind} and --data.folder DIR")
    test_share, extra_share = arguments["test_share"], arguments["extra_share"]
    check_value(0 <= test_share <= 1, "test_share", test_share, "0 to 1")
    if len(set(extra)) < len(extra):
        raise ValueError(f"--data.extra: a data set is given twice: {', '.join(extra)}")
    # The images are repeated up to this share.
    check_value(0.01 <= extra_share <= 0.99, "extra_share", extra_share, "0.01 to 0.99")
    if arguments["val_extra_only"] and (not extra or arguments["val_size"] is not None):
        raise ValueError("--data.val_extra_only needs --data.extra, and no --data.val_size")
    for name, minimum in _MINIMUM.items():
        value = arguments[name]
        if value is not None:
            check_value(value >= minimum, name, value, f"at least {minimum}")
