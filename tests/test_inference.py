"""The Recognizer: predictions of a trained network without Lightning."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import mnist_lightning
from mnist_lightning import Recognizer, UserError, load
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.networks.classic_cnn import ClassicCNN
from mnist_lightning.preprocessing.normalization import normalize
from mnist_lightning.runs.predictions_csv import read_predictions
from mnist_lightning.runs.run_directory import Run
from tests.conftest import DIGITS, Command


def create_network() -> nn.Module:
    torch.manual_seed(0)
    return ClassicCNN()


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    """The test images of the bundled digits, (297, 28, 28) uint8."""
    return SOURCES["digits"].load(Path()).test_images


def test_predictions_equal_those_of_the_run(
    command: Command, run_0: Run, digits: torch.Tensor
) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "2")
    recognizer = load("best")
    assert type(recognizer.network) is ClassicCNN
    table = read_predictions(run_0.predictions)
    for index, image in enumerate(digits):
        label, probabilities = recognizer.predict(image)
        assert label == table.predicted[index]
        expected = recognizer.calibration.apply(table.probabilities[index : index + 1])[0]
        assert np.allclose(probabilities, expected, atol=1e-5)
    for reference in (run_0.folder, run_0.best, "0", "last"):
        assert load(reference).predict(digits[0]).label == table.predicted[0]


def test_all_input_types_give_the_same_prediction(digits: torch.Tensor, tmp_path: Path) -> None:
    recognizer = Recognizer(create_network())
    image = digits[3]
    array = image.numpy()
    picture = Image.fromarray(array)
    picture.save(tmp_path / "three.png")
    expected = recognizer.predict(array)
    assert expected.probabilities.sum() == pytest.approx(1)
    for other in (
        image,
        picture,
        tmp_path / "three.png",
        str(tmp_path / "three.png"),
        array[None],
        array / 255,
        torch.tensor(array / 255, dtype=torch.float32),
        normalize(image[None])[0],
        picture.convert("RGB"),
        np.asarray(picture.convert("RGB")),
        picture.convert("RGBA"),
    ):
        actual = recognizer.predict(other)
        assert actual.label == expected.label
        assert np.array_equal(actual.probabilities, expected.probabilities)


def test_dark_and_light_ink_give_the_same_prediction(digits: torch.Tensor) -> None:
    recognizer = Recognizer(create_network())
    for image in digits[:20].numpy():
        expected = recognizer.predict(image).probabilities
        on_paper = Image.fromarray(255 - image)
        assert np.allclose(recognizer.predict(on_paper).probabilities, expected, atol=0.05)


def test_reading_a_digit_imports_no_large_package_but_torch(
    command: Command, tmp_path: Path
) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    script = (
        "import sys, numpy, mnist_lightning; "
        "mnist_lightning.load('last').predict(numpy.eye(28)); "
        "large = {'lightning', 'torchmetrics', 'torchvision', 'torch._dynamo', 'matplotlib'}; "
        "sys.exit(', '.join(large & sys.modules.keys()) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_recognizer_is_in_evaluation_mode_and_leaves_no_gradients() -> None:
    recognizer = Recognizer(create_network().train())
    image = np.eye(28)
    first = recognizer.predict(image).probabilities
    assert np.array_equal(first, recognizer.predict(image).probabilities)
    assert all(parameter.grad is None for parameter in recognizer.network.parameters())


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((40, 40), dtype=np.uint8), "no digit in the image"),
        (np.full((40, 40), 255, dtype=np.uint8), "no digit in the image"),
        (np.zeros(784), r"of shape \(784,\)"),
        (np.zeros((2, 28, 28)), r"of shape \(2, 28, 28\)"),
        (np.zeros((0, 28)), r"of shape \(0, 28\)"),
        (np.full((28, 28), 7.0), "with values from 7 to 7: expected 0 to 1"),
        (np.full((28, 28), np.nan), "values from nan to nan"),
        (np.full((28, 28), 300), "expected 0 to 255"),
        (np.zeros((28, 28), dtype=np.uint8), "no digit in the image"),
        (np.eye(28, dtype=np.int64), "no digit in the image"),
        (np.eye(28, dtype=complex), "type complex128"),
        (np.full((28, 28), "7"), "type <U1"),
        (np.eye(28)[None] - 1e-6, "with values from -1e-06"),
    ],
)
def test_invalid_arrays_are_rejected(image: NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recognizer(create_network()).predict(image)


@pytest.mark.parametrize("value", [[1, 2], None, b"bytes", 7])
def test_the_error_for_an_unsupported_type_names_it(value: Any) -> None:
    with pytest.raises(TypeError, match=f"not a {type(value).__name__}"):
        Recognizer(create_network()).predict(value)


def test_16_bit_and_float_images_are_not_clipped(digits: torch.Tensor, tmp_path: Path) -> None:
    recognizer = Recognizer(create_network())
    array = digits[7].numpy()
    expected = recognizer.predict(array).probabilities
    deep = (array.astype(np.uint16) * 257).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    for picture in (tmp_path / "deep.png", Image.fromarray(array.astype(np.float32) / 255)):
        assert np.array_equal(recognizer.predict(picture).probabilities, expected)


@pytest.mark.parametrize("shade", [0, 255])
def test_ink_on_a_transparent_background_may_have_any_color(
    digits: torch.Tensor, shade: int
) -> None:
    recognizer = Recognizer(create_network())
    alpha = digits[7].numpy()
    drawing = np.stack([np.full_like(alpha, shade)] * 3 + [alpha], axis=2)
    expected = recognizer.predict(alpha).probabilities
    actual = recognizer.predict(Image.fromarray(drawing)).probabilities
    assert np.allclose(actual, expected, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_tensor_may_have_any_precision(digits: torch.Tensor, dtype: torch.dtype) -> None:
    recognizer = Recognizer(create_network())
    expected = recognizer.predict(digits[7]).probabilities
    actual = recognizer.predict((digits[7] / 255).to(dtype)).probabilities
    assert np.allclose(actual, expected, atol=0.01)


def test_a_file_that_is_not_an_image_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"text.png: not an image of a supported format"):
        Recognizer(create_network()).predict(tmp_path / "text.png")
    with pytest.raises(FileNotFoundError, match=r"missing.png"):
        Recognizer(create_network()).predict(tmp_path / "missing.png")


def test_a_reference_that_cannot_be_loaded_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run not found: 3 in"):
        load("3", root=tmp_path)
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match="is not a checkpoint of a DigitClassifier"):
        load(tmp_path / "foreign.ckpt")


def test_public_names_are_those_of_the_package() -> None:
    for name in mnist_lightning.__all__:
        assert getattr(mnist_lightning, name) is not None
