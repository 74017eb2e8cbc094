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

from mnist_lightning.errors import UserError, unsigned_files
from mnist_lightning.networks import registry
from mnist_lightning.networks.calibration import apply_temperature
from mnist_lightning.networks.ensemble import Ensemble
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.normalization import PAPER, normalize
from mnist_lightning.runs import lookup, trusted_paths
from mnist_lightning.runs.checkpoint import MAX_UNSIGNED_BYTES, network_weights, read_checkpoint
from mnist_lightning.runs.imports import import_allowed
from mnist_lightning.runs.run_directory import LOGS_FOLDER
from mnist_lightning.runs.summary_json import valid_temperature

UNSURE_BELOW = 0.8  # calibrated confidence
# Values of the option and of the API: whether an image contains several digits.
MULTIPLE = {"auto": None, "true": True, "false": False}

METADATA_KEY = "mnist_lightning"  # of the description in an exported file

MAX_HEADER_BYTES = 10_000_000  # of a .safetensors file; the networks here use about 3,000

ImageInput = str | Path | Image.Image | NDArray[Any] | Tensor


class Prediction(NamedTuple):
    """The prediction for one image.

    Attributes:
        label: the class with the highest probability.
        probabilities: (C,) float32, one for each class; their sum is 1.
    """

    label: int
    probabilities: NDArray[np.float32]


class DigitPrediction(NamedTuple):
    """The prediction for one digit of an image.

    Attributes:
        digit: the digit as it was found and as the network input.
        probabilities: (C,), calibrated: nine in ten predictions at 0.9 are correct, on images
            similar to those of the validation set.
    """

    digit: mnist_format.DigitImage
    probabilities: NDArray[np.float64]

    @property
    def ranks(self) -> list[int]:
        """The labels, the most probable first."""
        return list(map(int, np.argsort(-self.probabilities, kind="stable")))

    @property
    def label(self) -> int:
        """The most probable label."""
        return self.ranks[0]

    @property
    def confidence(self) -> float:
        """The probability of the label."""
        return float(self.probabilities[self.label])

    @property
    def unsure(self) -> bool:
        """Whether the confidence is low enough to warn the user."""
        return not self.confidence >= UNSURE_BELOW  # True also for NaN, of a diverged network


class Recognizer:
    """Recognizes digits with a trained network.

    Args:
        network: maps images (B, 1, 28, 28), normalized as in training, to logits (B, C).
        temperature: divisor of the logits, for calibrated confidence.
    """

    def __init__(self, network: nn.Module, temperature: float = 1.0) -> None:
        self.network = network.eval()
        self.temperature = temperature

    def predict(self, image: ImageInput) -> Prediction:
        """Predict the label of one digit, darker or lighter than the background.

        Args:
            image: a path, a PIL image, or an array or tensor; see `mnist_format.from_array`. It is
                converted to MNIST's format, which does not change MNIST's own images. Floats
                (1, 28, 28) with the background value of the data module, -0.42, are used as they
                are: they are already normalized.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it is not an image, is damaged, or contains no digit.
            TypeError: the type is not supported.
        """
        probabilities = self.probabilities(_as_input(image).unsqueeze(0))[0].numpy()
        return Prediction(int(probabilities.argmax()), probabilities)

    def read(self, image: Image.Image, multiple: bool | None = None) -> list[DigitPrediction]:
        """Read the digits in an image, in reading order, with calibrated confidence.

        Args:
            image: see `mnist_format.read`.
            multiple: whether the image contains several digits. None: detect it.

        Raises:
            ValueError: the image contains no digit.
        """
        return self.read_digits(mnist_format.find_digits(image, multiple))

    def read_digits(self, digits: Sequence[mnist_format.DigitImage]) -> list[DigitPrediction]:
        """Predict the labels of digits found in an image, with calibrated confidence."""
        inputs = normalize(torch.from_numpy(np.stack([digit.ink for digit in digits])))
        rows = apply_temperature(self.probabilities(inputs).numpy(), self.temperature)
        return [DigitPrediction(digit, row) for digit, row in zip(digits, rows, strict=True)]

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
        run: a run's folder, its version number, a checkpoint file, `last` or `best`; or a
            `.safetensors` file written by `export`. Several, `3,5` or `3..5`, form an ensemble: the
            mean of their probabilities.
        root: the folder of the runs.
        classes: your own network classes, if the checkpoint needs them.

    Raises:
        UserError: the run does not exist, its checkpoint is damaged, or its network is unknown.
    """
    references = lookup.expand_references(str(run))
    if len(references) > 1:
        classes = list(classes)
        return Recognizer(Ensemble([load(name, root, classes).network for name in references]))
    run_dir, path = lookup.find(str(run), Path(root))
    path = path or run_dir.best_checkpoint()
    if path.suffix == ".safetensors":
        return _load_safetensors(path, classes)
    checkpoint = read_checkpoint(path)
    if "network" not in checkpoint:
        raise UserError(f"{path} is not a checkpoint of a DigitClassifier")
    network = registry.build(checkpoint["network"], classes, network_weights(checkpoint))
    return Recognizer(network, run_dir.summary().get("temperature", 1.0))


def _load_safetensors(path: Path, classes: Iterable[type[nn.Module]]) -> Recognizer:
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError:
        raise UserError(
            "this file needs the package safetensors: pip install 'mnist-lightning[export]'"
        ) from None
    unsigned_files.last = path
    try:
        _check_header(path)
        with safe_open(path, "pt") as file:
            description = json.loads((file.metadata() or {})[METADATA_KEY])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        network = registry.build(description["network"], classes, weights)
        if valid_temperature(description["temperature"]) is None:
            raise ValueError("its temperature is invalid")
        return Recognizer(network, description["temperature"])
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is damaged or was not written by `export`: {reason}") from None


def _check_header(path: Path) -> None:
    """Check the size of a `.safetensors` file and of its header, before it is parsed.

    The library checks that the tensors match the file size.
    """
    if (size := path.stat().st_size) > MAX_UNSIGNED_BYTES:
        raise ValueError(f"it has {size:,} bytes; the limit is {MAX_UNSIGNED_BYTES:,}")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    limit = min(size - 8, MAX_HEADER_BYTES)
    if length > limit:
        raise ValueError(f"its header has {length:,} bytes; the limit is {limit:,}")


def _as_input(image: ImageInput) -> Tensor:
    """Convert an image to the input of a network: (1, 28, 28), normalized."""
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
            f"expected a path, a PIL image, an array or a tensor, not a {type(image).__name__}"
        )
    return normalize(torch.from_numpy(mnist_format.from_image(image).copy()).unsqueeze(0))[0]


def _is_normalized(array: NDArray[Any]) -> bool:
    """Return whether an array is an output of the data module, by its background value."""
    return (
        array.shape == (1, mnist_format.SIZE, mnist_format.SIZE)
        and np.issubdtype(array.dtype, np.floating)
        and math.isclose(array.min(), PAPER, abs_tol=0.01)
    )


def import_network_class(name: str | None) -> list[type[nn.Module]]:
    """Import the user's own network class that the command line names; None: no class.

    Raises:
        UserError: the name is not that of an importable network class.
    """
    if name is None:
        return []
    try:
        network_class = import_allowed(name)
    except ImportError:
        network_class = None
    if not (isinstance(network_class, type) and issubclass(network_class, nn.Module)):
        problem = f"--model.network: cannot import a network class {name}"
        raise UserError(f"{problem}; expected package.module.Class", 2)
    trusted_paths.remember(Path.cwd())
    return [network_class]
