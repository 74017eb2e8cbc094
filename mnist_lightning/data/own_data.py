"""Your own data set: a folder of images, or arrays in MNIST's format."""

from pathlib import Path

from mnist_lightning.data import idx
from mnist_lightning.data.datasets import DigitData
from mnist_lightning.data.image_folder import load_folder
from mnist_lightning.errors import UserError
from mnist_lightning.networks.registry import MAX_CLASSES

# The names of MNIST's own files, for training and for the test.
PARTS = ("train", "t10k")
KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")


def load_own(dataset: str, folder: Path, test_share: float) -> tuple[DigitData, str | None]:
    """Load your own data: `folder` or `idx`.

    Args:
        dataset: `folder`: images, see `load_folder`; `idx`: arrays, see `load_arrays`.
        folder: the folder of the images or arrays.
        test_share: fraction of test images, 0 to 1; arrays have their own test images.

    Returns:
        The data, and a notice about skipped files; None if there is none.

    Raises:
        UserError: there are no images, or they are damaged.
    """
    if dataset == "idx":
        return load_arrays(folder), None
    return load_folder(folder, test_share)


def load_arrays(folder: Path) -> DigitData:
    """Map the four files of a data set in MNIST's format; they may be larger than the memory.

    Args:
        folder: contains files with the names of MNIST's, not compressed.

    Raises:
        UserError: a file is missing, or does not contain images (N, 28, 28) or their labels.
    """
    tensors = []
    for part in PARTS:
        try:
            images = idx.read_images(folder / f"{part}-{KINDS[0]}")
            labels = idx.read_labels(folder / f"{part}-{KINDS[1]}", len(images), MAX_CLASSES)
        except FileNotFoundError as error:
            names = [f"{part}-{kind}" for part in PARTS for kind in KINDS]
            problem = f"no file {error.filename}; --data.dataset idx needs"
            raise UserError(f"{problem} {', '.join(names)}", status=2) from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UserError(f"{error.filename}: {reason}; give a file", status=2) from None
        except ValueError as error:
            raise UserError(f"{folder}: {error}", status=2) from None
        tensors += [images, labels]
    return DigitData("idx", *tensors)
