"""`load()` and `Recognizer`: a trained network in plain torch, without Lightning."""

import math
from collections.abc import Iterable, Sequence
from inspect import isfunction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from mnist_lightning.errors import UserError
from mnist_lightning.networks import registry
from mnist_lightning.networks.calibration import Calibration
from mnist_lightning.networks.ensemble import Ensemble
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.normalization import PAPER, normalize
from mnist_lightning.runs import lookup, trusted_paths
from mnist_lightning.runs.checkpoint import network_weights, read_checkpoint
from mnist_lightning.runs.imports import import_allowed
from mnist_lightning.runs.run_directory import LOGS_FOLDER
from mnist_lightning.runs.summary_json import read_calibration
from mnist_lightning.text import confidence

UNSURE_BELOW = 0.8  # calibrated confidence
# Values of the option and of the API: whether an image contains several digits.
MULTIPLE = {"auto": None, "true": True, "false": False}

ImageInput = str | Path | Image.Image | NDArray[Any] | Tensor


class Prediction(NamedTuple):
    """The prediction for one image.

    Attributes:
        label: the class with the highest probability.
        probabilities: (C,) float32, calibrated, one for each class; their sum is 1.
    """

    label: int
    probabilities: NDArray[np.float32]


class DigitPrediction(NamedTuple):
    """The prediction for one digit of an image.

    Attributes:
        digit: the digit as it was found and as the network input.
        probabilities: (C,), calibrated: nine in ten predictions at 0.9 are correct, on images
            similar to those of the validation set.
        not_digit: whether the image is probably not a digit.
    """

    digit: mnist_format.DigitImage
    probabilities: NDArray[np.float64]
    not_digit: bool = False

    def __repr__(self) -> str:
        """Return one line, without the pixels."""
        note = ", probably not a digit" if self.not_digit else ", unsure" if self.unsure else ""
        return f"<{self.label} ({confidence(self.confidence)}{note}) at {self.digit.box}>"

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
        calibration: for calibrated confidence; None: the confidence is not calibrated.
        source: where the network is from, for the user.
    """

    def __init__(
        self, network: nn.Module, calibration: Calibration | None = None, source: str = ""
    ) -> None:
        self.network = network.eval()
        self.source = source
        self.is_calibrated = calibration is not None
        self.calibration = calibration or Calibration()

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
        probabilities = self.calibrated_probabilities(_as_input(image).unsqueeze(0))[0][0]
        return Prediction(int(probabilities.argmax()), probabilities.astype(np.float32))

    def read(self, image: ImageInput, multiple: bool | None = None) -> list[DigitPrediction]:
        """Read the digits in an image, in reading order.

        Args:
            image: a path, a PIL image, or an array or tensor; see `mnist_format.from_array`.
            multiple: whether the image contains several digits. None: detect it.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it is not an image, is damaged, or contains no digit.
            TypeError: the type is not supported.
        """
        return self.read_digits(mnist_format.find_digits(_as_picture(image), multiple))

    def read_digits(self, digits: Sequence[mnist_format.DigitImage]) -> list[DigitPrediction]:
        """Predict the labels of digits found in an image."""
        inputs = normalize(torch.from_numpy(np.stack([digit.ink for digit in digits])))
        rows, rejected = self.calibrated_probabilities(inputs)
        parts = zip(digits, rows, rejected.tolist(), strict=True)
        return [DigitPrediction(*each) for each in parts]

    def calibrated_probabilities(
        self, images: Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Map (B, 1, 28, 28) normalized images to calibrated probabilities (B, C).

        Returns:
            The probabilities, and for each image whether it is probably not a digit (B,).
        """
        probabilities = self.probabilities(images).numpy()
        calibration = self.calibration
        return calibration.apply(probabilities), calibration.rejects(probabilities)

    def probabilities(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to the probabilities (B, C), on the CPU."""
        device = next((parameter.device for parameter in self.network.parameters()), None)
        with torch.inference_mode():
            logits: Tensor = self.network(images.to(device))
        return logits.float().softmax(dim=1).cpu()


class EnsembleRecognizer(Recognizer):
    """Averages the calibrated probabilities of several recognizers.

    Args:
        members: the recognizers. An image is rejected if most of them reject it.
    """

    def __init__(self, members: Sequence[Recognizer]) -> None:
        super().__init__(Ensemble(member.network for member in members))
        self._members = members
        self.is_calibrated = all(member.is_calibrated for member in members)

    def calibrated_probabilities(
        self, images: Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """See the base class."""
        results = [member.calibrated_probabilities(images) for member in self._members]
        rows, rejected = (np.mean(part, axis=0) for part in zip(*results, strict=True))
        return rows, rejected > 0.5


def load(
    run: str | Path = "best",
    root: str | Path = LOGS_FOLDER,
    classes: Iterable[registry.NetworkFactory] = (),
) -> Recognizer:
    """Load the network of a run's best checkpoint, of a checkpoint file, or of an export.

    Args:
        run: a run's folder, its version number, a checkpoint file, `last`, `best` or `pretrained`;
            or a `.safetensors` file written by `export`. Several, `3,5` or `3..5`, form an
            ensemble: the mean of their calibrated probabilities. Without runs, `best` is the
            pretrained network.
        root: the folder of the runs.
        classes: your own network classes, or functions that return a network, if the checkpoint
            needs them.

    Raises:
        UserError: the run does not exist, its checkpoint is damaged, or its network is unknown.
    """
    references = lookup.expand_references(str(run))
    classes = list(classes)
    if len(references) > 1:
        return EnsembleRecognizer([load(name, root, classes) for name in references])
    run_dir, path = lookup.find_network(str(run), Path(root))
    path = path or run_dir.best_checkpoint()
    checkpoint = read_checkpoint(path)
    if "network" not in checkpoint:
        raise UserError(f"{path} is not a checkpoint of a DigitClassifier")
    network = registry.build(checkpoint["network"], classes, network_weights(checkpoint))
    is_export = path.suffix == ".safetensors"
    stored = checkpoint["calibration"] if is_export else read_calibration(run_dir.summary())
    source = lookup.PRETRAINED if run_dir.is_pretrained else str(path)
    return Recognizer(network, None if stored is None else Calibration(**stored), source)


def _as_input(image: ImageInput) -> Tensor:
    """Convert an image to the input of a network: (1, 28, 28), normalized."""
    if isinstance(image, np.ndarray | Tensor):
        array = _as_array(image)
        if _is_normalized(array):
            return torch.from_numpy(array.astype(np.float32))
        image = array
    ink = mnist_format.from_image(_as_picture(image))
    return normalize(torch.from_numpy(ink.copy()).unsqueeze(0))[0]


def _as_array(image: NDArray[Any] | Tensor) -> NDArray[Any]:
    if isinstance(image, Tensor):
        tensor = image.detach().cpu()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return image


def _as_picture(image: ImageInput) -> Image.Image:
    if isinstance(image, np.ndarray | Tensor):
        return mnist_format.from_array(_as_array(image))
    if isinstance(image, str | Path):
        path = Path(image).expanduser()
        try:
            return mnist_format.read(path)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    if not isinstance(image, Image.Image):
        raise TypeError(
            f"expected a path, a PIL image, an array or a tensor, not a {type(image).__name__}"
        )
    return image


def _is_normalized(array: NDArray[Any]) -> bool:
    """Return whether an array is an output of the data module, by its background value."""
    return (
        array.shape == (1, mnist_format.SIZE, mnist_format.SIZE)
        and np.issubdtype(array.dtype, np.floating)
        and math.isclose(array.min(), PAPER, abs_tol=0.01)
    )


def import_network_class(name: str | None) -> list[registry.NetworkFactory]:
    """Import the user's own network class that the command line names; None: no class.

    It may also be a function that returns a network.

    Raises:
        UserError: the name is not that of an importable network class.
    """
    if name is None:
        return []
    try:
        factory = import_allowed(name)
    except ImportError:
        factory = None
    is_class = isinstance(factory, type) and issubclass(factory, nn.Module)
    if not (is_class or isfunction(factory)):
        problem = f"--model.network: cannot import a network class {name}"
        raise UserError(f"{problem}; expected package.module.Class", 2)
    trusted_paths.remember(Path.cwd())
    return [factory]
