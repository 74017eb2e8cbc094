"""Export formats: write a network, read it back, compare the two."""

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnist_lightning import inference
from mnist_lightning.deployment import html_export, model_card, quantization
from mnist_lightning.errors import UserError
from mnist_lightning.files import write_atomically
from mnist_lightning.networks.inspection import trace
from mnist_lightning.networks.registry import build, describe, factory_of
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.normalization import MEAN, STD, normalize
from mnist_lightning.runs.safetensors_file import METADATA_KEY

ENSEMBLE_FORMATS = ("onnx", "int8", "pt2")  # formats with a program rather than weights
BATCH = "batch"  # the name of the first dimension of inputs and outputs
OPSET = 18  # of ONNX: the lowest that torch's exporter writes without a conversion

Pixels = NDArray[np.uint8]
Logits = NDArray[np.float32]
Predict = Callable[[Pixels], Logits]


class FromPixels(nn.Module):
    """A network with its normalization.

    Args:
        network: maps normalized images (B, 1, 28, 28) to logits (B, C).
        softmax: return probabilities instead of logits.
    """

    def __init__(self, network: nn.Module, softmax: bool = False) -> None:
        super().__init__()
        self.network = network
        self.softmax = softmax

    def forward(self, pixels: Tensor) -> Tensor:
        """Map images (B, 28, 28) uint8, 0 for paper, to logits or probabilities (B, C)."""
        scaled = (pixels.unsqueeze(1).float() - 255 * MEAN) / (255 * STD)
        logits: Tensor = self.network(scaled)
        return logits.softmax(dim=1) if self.softmax else logits


class Export(NamedTuple):
    """A network to export, with its metadata.

    Attributes:
        training_images: (N, 28, 28), of the data set of the network.
    """

    recognizer: inference.Recognizer
    softmax: bool
    metadata: dict[str, Any]
    training_images: Pixels

    @property
    def output(self) -> str:
        """The name of the output."""
        return "probabilities" if self.softmax else "logits"

    @property
    def from_pixels(self) -> FromPixels:
        """The network with its normalization, in evaluation mode."""
        return FromPixels(self.recognizer.network, self.softmax).eval()


class Format(NamedTuple):
    """An export format.

    Attributes:
        suffix: of the file.
        write: writes a file.
        load: returns a function that predicts with the file.
        tolerance: maximal difference of logits, relative to the largest logit of an image.
        agreement: minimal share of equal labels.
    """

    suffix: str
    write: Callable[[Export, Path], None]
    load: Callable[[Export, Path], Predict]
    tolerance: float = 1e-4
    agreement: float = 1.0


def _write_pth(export: Export, path: Path) -> None:
    torch.save(export.recognizer.network.state_dict(), path)


def _load_pth(export: Export, path: Path) -> Predict:
    network = export.recognizer.network
    weights = torch.load(path, weights_only=True)
    return predictor(FromPixels(build(describe(network), [factory_of(network)], weights).eval()))


def _write_safetensors(export: Export, path: Path) -> None:
    from safetensors.torch import save_file

    weights = export.recognizer.network.state_dict()
    contiguous = {name: weight.contiguous() for name, weight in weights.items()}
    save_file(contiguous, path, {METADATA_KEY: json.dumps(export.metadata)})


def _load_safetensors(export: Export, path: Path) -> Predict:
    recognizer = inference.load(path, classes=[factory_of(export.recognizer.network)])
    return predictor(FromPixels(recognizer.network))


def _write_pt2(export: Export, path: Path) -> None:
    torch.export.save(_trace(export.from_pixels), path)


def _load_pt2(export: Export, path: Path) -> Predict:
    return predictor(torch.export.load(path).module())


def _write_onnx(export: Export, path: Path) -> None:
    _save_onnx(export, _trace(export.from_pixels), path)


def _write_int8(export: Export, path: Path) -> None:
    images = normalize(torch.from_numpy(export.training_images))
    network = quantization.quantize(export.recognizer.network, images)
    traced = _trace(FromPixels(network, export.softmax).eval())
    _save_onnx(export, traced, path)


def _save_onnx(export: Export, traced: torch.export.ExportedProgram, path: Path) -> None:
    import onnx

    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it reports each kept weight
    program = torch.onnx.export(
        traced,
        dynamo=True,
        dynamic_shapes={"pixels": {0: BATCH}},  # only the name: the trace has a symbol like s81
        opset_version=OPSET,
        input_names=["pixels"],
        output_names=[export.output],
        optimize=False,
        verbose=False,
    )
    assert program is not None
    graph = program.model.graph
    weights = [value for value in graph.initializers.values() if str(value.dtype) == "INT8"]
    graph.inputs.extend(weights)  # else the optimization would turn them into real numbers
    program.optimize()
    del graph.inputs[1:]
    model = program.model_proto
    model.graph.ClearField("value_info")
    for node in model.graph.node:
        node.ClearField("metadata_props")  # the code that made it, with paths of this machine
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(export.metadata)})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def _load_onnx(export: Export, path: Path) -> Predict:
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixels": pixels})[0]


def _write_html(export: Export, path: Path) -> None:
    summary = model_card.summarize(export.metadata)
    html_export.write(export.recognizer.network, export.metadata, summary, path)


def _load_html(export: Export, path: Path) -> Predict:
    return lambda pixels: html_export.predict_logits(path, pixels)


FORMATS = {
    "pth": Format("pth", _write_pth, _load_pth),
    "safetensors": Format("safetensors", _write_safetensors, _load_safetensors),
    "onnx": Format("onnx", _write_onnx, _load_onnx),
    "int8": Format("int8.onnx", _write_int8, _load_onnx, tolerance=0.1, agreement=0.95),
    "pt2": Format("pt2", _write_pt2, _load_pt2),
    "html": Format("html", _write_html, _load_html, tolerance=1e-2, agreement=0.999),
}


def _trace(from_pixels: FromPixels) -> torch.export.ExportedProgram:
    """Trace a network for batches of any size, without paths of this machine."""
    example = torch.zeros(2, mnist_format.SIZE, mnist_format.SIZE, dtype=torch.uint8)
    traced = trace(from_pixels, example, ({0: torch.export.Dim(BATCH)},))
    for node in traced.graph.nodes:
        node.meta.pop("stack_trace", None)
    return traced


def predictor(module: nn.Module) -> Predict:
    """Return a function that predicts with a torch module."""

    def predict(pixels: Pixels) -> Logits:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(pixels)), dtype=np.float32)

    return predict


def write(export: Export, kind: Format, pixels: Pixels, path: Path) -> str:
    """Write a file if its predictions agree on images (N, 28, 28); return the agreement as text.

    Raises:
        UserError: they do not, a package is missing, or the format does not support the network.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        temporary = Path(folder, f"{path.stem}.{kind.suffix}")
        try:
            with warnings.catch_warnings(action="ignore"):  # of the exporters' internals
                kind.write(export, temporary)
                logits = kind.load(export, temporary)(pixels)
        except ModuleNotFoundError as missing:
            raise UserError(
                f"this format needs the package {missing.name}; install it: "
                "pip install 'mnist-lightning[export]'"
            ) from None
        agreement = compare(predictor(export.from_pixels)(pixels), logits, kind)
        write_atomically(temporary.read_bytes(), path)
    return agreement


def compare(expected: Logits, actual: Logits, kind: Format) -> str:
    """Compare the outputs (N, C) of two models for the same images; return the agreement as text.

    Raises:
        UserError: the labels or the logits differ by more than the format allows.
    """
    equal = int((expected.argmax(axis=1) == actual.argmax(axis=1)).sum())
    scale = np.abs(expected).max(axis=1)
    difference = float((np.abs(expected - actual).max(axis=1) / scale).max())
    agreement = (
        f"{equal:,} of {len(expected):,} labels equal, logits differ by {difference:.1e} at most"
    )
    if equal < kind.agreement * len(expected) or not difference <= kind.tolerance:
        raise UserError(
            f"the exported model differs from the run: {agreement}; the tolerance is "
            f"{kind.tolerance:.0e}; no file was written"
        )
    return agreement
