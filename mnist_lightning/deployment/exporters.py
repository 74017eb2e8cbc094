"""Export formats: write a network, read it back, compare the two."""

import json
import secrets
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnist_lightning import inference
from mnist_lightning.deployment import html_export, model_card
from mnist_lightning.errors import UserError
from mnist_lightning.files import write_atomically
from mnist_lightning.inference import Recognizer
from mnist_lightning.networks.inspection import traced
from mnist_lightning.preprocessing import mnist_format

CHECKED = 1_000  # test images
ENSEMBLES = ("onnx", "pt2")  # the formats of a program, not of weights
OPSET = 18  # of ONNX: the first that torch's exporter gives without a conversion

Pixels = NDArray[np.uint8]
Logits = NDArray[np.float32]
Ask = Callable[[Pixels], Logits]


class FromPixels(nn.Module):
    """A network with its normalization.

    Args:
        network: maps normalized images (B, 1, 28, 28) to logits (B, C).
        softmax: give probabilities in place of logits.
    """

    def __init__(self, network: nn.Module, softmax: bool = False) -> None:
        super().__init__()
        self.network = network
        self.softmax = softmax

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pictures (B, 28, 28) uint8, 0 for paper, to logits or probabilities (B, C)."""
        scaled = (pixels.unsqueeze(1).float() - 255 * mnist_format.MEAN) / (255 * mnist_format.STD)
        logits: Tensor = self.network(scaled)
        return logits.softmax(dim=1) if self.softmax else logits


class Export(NamedTuple):
    """What is exported, and what there is to say of it."""

    recognizer: Recognizer
    softmax: bool
    metadata: dict[str, Any]

    @property
    def output(self) -> str:
        """What it gives."""
        return "probabilities" if self.softmax else "logits"

    @property
    def from_pixels(self) -> FromPixels:
        """The network with its normalization, for evaluation."""
        return FromPixels(self.recognizer.network, self.softmax).eval()


class Format(NamedTuple):
    """A format.

    Attributes:
        suffix: of its file.
        write: writes one.
        ask: asks one.
        tolerance: of an image's largest logit, by which others may differ.
        agreement: the share of labels that have to be equal.
    """

    suffix: str
    write: Callable[[Export, Path], None]
    ask: Callable[[Export, Path], Ask]
    tolerance: float = 1e-4
    agreement: float = 1.0


def _write_pth(export: Export, path: Path) -> None:
    torch.save(export.recognizer.network.state_dict(), path)


def _ask_pth(export: Export, path: Path) -> Ask:
    recognizer = inference.like(export.recognizer)
    recognizer.network.load_state_dict(torch.load(path, weights_only=True))
    return asking(FromPixels(recognizer.network))


def _write_safetensors(export: Export, path: Path) -> None:
    from safetensors.torch import save_file

    weights = {
        name: weight.contiguous() for name, weight in export.recognizer.network.state_dict().items()
    }
    save_file(weights, path, {inference.METADATA: json.dumps(export.metadata)})


def _ask_safetensors(export: Export, path: Path) -> Ask:
    again = inference.load(path, classes=[type(export.recognizer.network)])
    return asking(FromPixels(again.network))


def _write_pt2(export: Export, path: Path) -> None:
    torch.export.save(_traced(export), path)


def _ask_pt2(export: Export, path: Path) -> Ask:
    return asking(torch.export.load(path).module())


def _write_onnx(export: Export, path: Path) -> None:
    import onnx

    program = torch.onnx.export(
        _traced(export),
        dynamo=True,
        opset_version=OPSET,
        input_names=["pixels"],
        output_names=[export.output],
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {inference.METADATA: json.dumps(export.metadata)})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def _ask_onnx(export: Export, path: Path) -> Ask:
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=["CPUExecutionProvider"])

    def ask(pixels: Pixels) -> Logits:
        logits: Logits = session.run(None, {"pixels": pixels})[0]
        return logits

    return ask


def _write_html(export: Export, path: Path) -> None:
    told = model_card.in_short(export.metadata)
    html_export.write(export.recognizer.network, export.metadata, told, path)


def _ask_html(export: Export, path: Path) -> Ask:
    return lambda pixels: html_export.ask(path, pixels)


FORMATS = {
    "pth": Format("pth", _write_pth, _ask_pth),
    "safetensors": Format("safetensors", _write_safetensors, _ask_safetensors),
    "onnx": Format("onnx", _write_onnx, _ask_onnx),
    "pt2": Format("pt2", _write_pt2, _ask_pt2),
    "html": Format("html", _write_html, _ask_html, tolerance=1e-2, agreement=0.999),
}


def _traced(export: Export) -> torch.export.ExportedProgram:
    """Trace the network for batches of any size."""
    example = torch.zeros(2, mnist_format.SIZE, mnist_format.SIZE, dtype=torch.uint8)
    sizes = {0: torch.export.Dim("batch")}
    return traced(export.from_pixels, example, (sizes,))


def asking(module: nn.Module) -> Ask:
    """Ask a module in torch."""

    def ask(pixels: Pixels) -> Logits:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(pixels)), dtype=np.float32)

    return ask


def write(export: Export, kind: Format, pixels: Pixels, path: Path) -> str:
    """Write a file if it proves equal on pictures (N, 28, 28); say how equal.

    Raises:
        UserError: it is not, a package is missing, or the format does not take the network.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.tmp.{kind.suffix}")
    try:
        with warnings.catch_warnings(action="ignore"):  # of the exporters, about themselves
            try:
                kind.write(export, beside)
                found = kind.ask(export, beside)(pixels)
            except ModuleNotFoundError as missing:
                raise UserError(
                    f"this format needs {missing.name}; install it: "
                    "pip install 'mnist-lightning[export]'"
                ) from None
        said = compare(asking(export.from_pixels)(pixels), found, kind)
        write_atomically(beside.read_bytes(), path)
    finally:
        beside.unlink(missing_ok=True)
    return said


def compare(wanted: Logits, found: Logits, kind: Format) -> str:
    """Compare what two models give for the same pictures, (N, C) each; say how they agree.

    Raises:
        UserError: more labels differ than the format may have, or logits by more.
    """
    agreed = int((wanted.argmax(axis=1) == found.argmax(axis=1)).sum())
    scale = np.abs(wanted).max(axis=1)
    difference = float((np.abs(wanted - found).max(axis=1) / scale).max())
    said = (
        f"{agreed:,} of {len(wanted):,} labels equal, logits within {difference:.1e} of an image's "
        "largest"
    )
    if agreed < kind.agreement * len(wanted) or not difference <= kind.tolerance:
        raise UserError(
            f"the exported model is not the run's: {said}; the tolerance is {kind.tolerance:.0e}; "
            "no file was written"
        )
    return said
