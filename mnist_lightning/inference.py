"""`load()` and `Recognizer`: a trained network in plain torch, without Lightning."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from mnist_lightning.errors import UserError
from mnist_lightning.networks import registry
from mnist_lightning.networks.calibration import tempered
from mnist_lightning.networks.ensemble import Ensemble
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.mnist_format import normalize
from mnist_lightning.runs import lookup, trusted_directories
from mnist_lightning.runs.checkpoint import (
    MAX_UNSIGNED_BYTES,
    network_weights,
    read_checkpoint,
)
from mnist_lightning.runs.imports import import_allowed
from mnist_lightning.runs.run_directory import LOGS_FOLDER, is_temperature

UNSURE = 0.8  # a calibrated confidence below this is said
# Whether there are several digits, as people say it.
MULTIPLE = {"auto": None, "true": True, "false": False}

METADATA = "mnist_lightning"  # the key of what an exported file says of itself

MAX_HEADER_BYTES = 10_000_000  # of a .safetensors file; the networks here need about 3,000

Picture = str | Path | Image.Image | NDArray[Any] | Tensor


class Prediction(NamedTuple):
    """What a network said of one picture.

    Attributes:
        label: the class of the highest probability.
        probabilities: (C,) float32, one for each class, their sum 1.
    """

    label: int
    probabilities: NDArray[np.float32]


class Reading(NamedTuple):
    """What was read at one place of a picture.

    Attributes:
        digit: what was found there, as the network saw it.
        probabilities: (C,), calibrated: of readings at 0.9 nine in ten are right, on images like
            those of the network's validation.
    """

    digit: mnist_format.Digit
    probabilities: NDArray[np.float64]

    @property
    def ranks(self) -> list[int]:
        """The labels, the likeliest first."""
        ranks: list[int] = np.argsort(-self.probabilities, kind="stable").tolist()
        return ranks

    @property
    def label(self) -> int:
        """The likeliest label."""
        return self.ranks[0]

    @property
    def confidence(self) -> float:
        """The label's probability."""
        return float(self.probabilities[self.label])

    @property
    def unsure(self) -> bool:
        """Whether the confidence is so low that it has to be said."""
        return not self.confidence >= UNSURE  # also of a network that diverged


class Recognizer:
    """Reads digits with a trained network.

    Args:
        network: maps images (B, 1, 28, 28), normalized as in training, to logits (B, C).
        temperature: what its logits are divided by, for calibrated confidence.
    """

    def __init__(self, network: nn.Module, temperature: float = 1.0) -> None:
        self.network = network.eval()
        self.temperature = temperature

    def predict(self, image: Picture) -> Prediction:
        """Read one digit, darker or lighter than its paper.

        Args:
            image: a path, a PIL image, or an array or tensor as `mnist_format.from_array` takes
                it. It is brought to MNIST's form, in which MNIST's own pictures are already. Floats
                (1, 28, 28) with the data module's value of paper, -0.42, are taken for what it
                gives: normalized, and not to be changed.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it is no picture, or a damaged one, or there is no digit in it.
            TypeError: it is none of these.
        """
        probabilities = self.probabilities(_as_input(image).unsqueeze(0))[0].numpy()
        return Prediction(int(probabilities.argmax()), probabilities)

    def read(self, picture: Image.Image, multiple: bool | None = None) -> list[Reading]:
        """Read the digits in a picture, in reading order, with calibrated confidence.

        Args:
            picture: see `mnist_format.read`.
            multiple: whether there are several. None: if that is obvious.

        Raises:
            ValueError: there is no digit in it.
        """
        return self.read_digits(mnist_format.find_digits(picture, multiple))

    def read_digits(self, digits: Sequence[mnist_format.Digit]) -> list[Reading]:
        """Read digits that were found in a picture, with calibrated confidence."""
        inputs = normalize(torch.from_numpy(np.stack([digit.ink for digit in digits])))
        asked = tempered(self.probabilities(inputs).numpy(), self.temperature)
        return [Reading(digit, row) for digit, row in zip(digits, asked, strict=True)]

    def probabilities(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to the probabilities (B, C), on the CPU."""
        device = next((parameter.device for parameter in self.network.parameters()), None)
        with torch.inference_mode():
            logits: Tensor = self.network(images.to(device))
        return logits.float().softmax(dim=1).cpu()


def load(
    run: str | Path = "best",
    root: str | Path = LOGS_FOLDER,
    classes: Iterable[type[nn.Module]] = (),
) -> Recognizer:
    """Load the network of a run's best checkpoint, of a checkpoint file, or of an export.

    Args:
        run: a run's folder, its version number, a checkpoint file, `last` or `best`; or a file
            `.safetensors` that `export` wrote. Several, `3,5` or `3..5`, are asked as one, for the
            mean of their probabilities.
        root: the folder of the runs.
        classes: your own network classes, that the checkpoint may need.

    Raises:
        UserError: there is no such run, its checkpoint is damaged, or its network is unknown.
    """
    asked = lookup.expand_references(str(run))
    if len(asked) > 1:
        classes = list(classes)
        return Recognizer(Ensemble([load(one, root, classes).network for one in asked]))
    found, path = lookup.find(str(run), Path(root))
    path = path or found.best_checkpoint()
    if path.suffix == ".safetensors":
        return _load_safetensors(path, classes)
    checkpoint = read_checkpoint(path)
    if "network" not in checkpoint:
        raise UserError(f"{path} holds no DigitClassifier")
    network = registry.build(checkpoint["network"], classes, network_weights(checkpoint))
    return Recognizer(network, found.temperature or 1.0)


def _load_safetensors(path: Path, classes: Iterable[type[nn.Module]]) -> Recognizer:
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError:
        raise UserError(
            "this file needs safetensors; install it: pip install 'mnist-lightning[export]'"
        ) from None
    try:
        _check_header(path)
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})[METADATA])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        network = registry.build(about["network"], classes, weights)
        if not is_temperature(about["temperature"]):
            raise ValueError("its temperature is none")
        return Recognizer(network, about["temperature"])
    except (
        SafetensorError,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        OSError,
        RecursionError,
    ) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is damaged, or not made by `export`: {reason}") from None


def _check_header(path: Path) -> None:
    """Check the size of a `.safetensors` file and of its header, before it is parsed.

    The library checks that the tensors fit the file.
    """
    if (size := path.stat().st_size) > MAX_UNSIGNED_BYTES:
        raise ValueError(f"it has {size:,} bytes; the limit is {MAX_UNSIGNED_BYTES:,}")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    most = min(path.stat().st_size - 8, MAX_HEADER_BYTES)
    if length > most:
        raise ValueError(f"its header has {length:,} bytes; the limit is {most:,}")


def like(recognizer: Recognizer) -> Recognizer:
    """Make another network of the same architecture, with weights of its own."""
    network = recognizer.network
    again = registry.build(registry.describe(network), [type(network)])
    return Recognizer(again, recognizer.temperature)


def _as_input(image: Picture) -> Tensor:
    """Bring a picture to what a network takes: (1, 28, 28), normalized."""
    if isinstance(image, Tensor):
        tensor = image.detach().cpu()
        image = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if isinstance(image, np.ndarray):
        if _is_normalized(image):
            return torch.from_numpy(image.astype(np.float32))
        image = mnist_format.from_array(image)
    if isinstance(image, str | Path):
        path = Path(image).expanduser()
        try:
            image = mnist_format.read(path)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    if not isinstance(image, Image.Image):
        raise TypeError(
            f"a picture is a path, a PIL image, an array or a tensor, not a {type(image).__name__}"
        )
    return normalize(torch.from_numpy(mnist_format.from_picture(image).copy()).unsqueeze(0))[0]


def _is_normalized(array: NDArray[Any]) -> bool:
    """Tell what the data module gives: its paper is at one value."""
    if array.shape != (1, mnist_format.SIZE, mnist_format.SIZE) or not np.issubdtype(
        array.dtype, np.floating
    ):
        return False
    return math.isclose(array.min(), -mnist_format.MEAN / mnist_format.STD, abs_tol=0.01)


def own_classes(name: str | None) -> list[type[nn.Module]]:
    """Import the class of a network of one's own, as named on the command line, if it was.

    Raises:
        UserError: there is none of that name.
    """
    if name is None:
        return []
    try:
        found = import_allowed(name)
    except ImportError:
        found = None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UserError(f"--model.network: {name} is no network's class that can be imported", 2)
    trusted_directories.remember_if(True)
    return [found]
