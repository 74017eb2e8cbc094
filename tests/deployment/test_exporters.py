"""The command export: each format predicts as the run, each model card is correct."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import InferenceSession
from py_mini_racer import MiniRacer
from safetensors import safe_open
from torch import nn

from mnist_lightning import UserError, load
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.deployment import exporters, model_card
from mnist_lightning.deployment.exporters import (
    ENSEMBLE_FORMATS,
    FORMATS,
    Export,
    FromPixels,
    compare,
    write,
)
from mnist_lightning.inference import Recognizer
from mnist_lightning.networks.calibration import Calibration
from mnist_lightning.networks.registry import ARCHITECTURES
from mnist_lightning.preprocessing import mnist_format, normalization
from mnist_lightning.runs.run_directory import Run
from tests.conftest import DIGITS, AddRun, Command
from tests.images import draw_seven

pytestmark = pytest.mark.slow

PIXELS = SOURCES["digits"].load(Path()).test_images.numpy()
SUMMARY = {"dataset": "digits", "checksum": "0" * 64, "seed": 1, "versions": {"torch": "2"}}


@pytest.fixture
def trained_cli(command: Command, add_run: AddRun) -> Command:
    """A command in a directory with a run."""
    few = ("--trainer.max_epochs", "1", "--dashboards", "none")
    add_run(*DIGITS, *few)
    return command


def _equal(text: str, count: int) -> int:
    """Return how many of the labels are equal, according to an output."""
    (equal,) = re.findall(rf"([\d,]+) of {count:,} labels equal", text)
    return int(equal.replace(",", ""))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_run_is_exported_and_its_card_s_code_runs(
    trained_cli: Command, run_0: Run, kind: str
) -> None:
    result = trained_cli("export", "0", "--format", kind)
    assert result.status == 0, result.err
    folder = run_0.folder / "export" / kind
    assert sorted(path.name for path in folder.iterdir()) == [
        "MODEL_CARD.md",
        f"model.{FORMATS[kind].suffix}",
    ]
    assert _equal(result.out, 297) >= 297 * FORMATS[kind].agreement
    card = (folder / "MODEL_CARD.md").read_text()
    summary = run_0.summary()
    assert summary["checksum"] in card
    assert f"Test: {summary['test/correct']} of 297 correct" in card
    assert "Do not use it for bank checks" in card
    if kind == "html":
        return  # tests/deployment/test_html_export.py tests it in a browser
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    code += "\nassert 0 <= label < 10, label"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_changed_data_set_or_one_without_test_images_does_not_prevent_an_export(
    command: Command, tmp_path: Path
) -> None:
    for place in range(4):
        for label in range(10):
            path = tmp_path / "mine" / str(label) / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_seven(ink=10 * place + label).save(path)
    own = ("--data.dataset", "folder", "--data.folder", "mine", "--data.test_share", "0")
    few = ("--data.val_size", "4", "--trainer.max_epochs", "1", "--dashboards", "none")
    assert command("fit", *own, *few).status == 0
    draw_seven(ink=99).save(tmp_path / "mine" / "7" / "new.png")
    result = command("export", "last", "--format", "pth", "--output", "a.pth")
    assert result.status == 0, result.err
    assert "41 of 41 labels equal" in result.out
    assert {path.name for path in tmp_path.glob("a.*")} == {"a.pth", "a.MODEL_CARD.md"}
    (tmp_path / "mine").rename(tmp_path / "moved")
    missing = command("export", "last", "--format", "pth")
    assert missing.status == 1
    assert "give the directory of the data set: --data.data_dir DIR" in missing.err
    moved = command("export", "last", "--format", "pth", "--data.data_dir", "moved")
    assert moved.status == 0, moved.err


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("kind", FORMATS)
def test_each_architecture_is_exported_in_each_format(name: str, kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    recognizer = Recognizer(ARCHITECTURES[name](), Calibration(1.5, 3.0, 1.0, 0.1))
    about = model_card.metadata(SUMMARY, recognizer)
    path = tmp_path / f"model.{FORMATS[kind].suffix}"
    agreement = write(Export(recognizer, False, about, PIXELS), FORMATS[kind], PIXELS[:40], path)
    assert _equal(agreement, 40) >= 40 * FORMATS[kind].agreement
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_logits_of_a_page_survive_garbage_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = MiniRacer.eval

    def then_clear(engine: MiniRacer, *arguments: Any) -> Any:
        answer = evaluate(engine, *arguments)
        engine.low_memory_notification()
        return answer

    monkeypatch.setattr(MiniRacer, "eval", then_clear)
    torch.manual_seed(0)
    recognizer = Recognizer(ARCHITECTURES["SpeedCNN"](), Calibration(1.5, 3.0, 1.0, 0.1))
    about = model_card.metadata(SUMMARY, recognizer)
    export = Export(recognizer, False, about, PIXELS)
    agreement = write(export, FORMATS["html"], PIXELS[:40], tmp_path / "model.html")
    assert agreement.startswith("40 of 40 labels equal")


def test_an_onnx_model_is_self_contained(trained_cli: Command, run_0: Run) -> None:
    trained_cli("export", "0", "--format", "onnx", "--softmax", "--output", "elsewhere/digits.onnx")
    model = onnx.load("elsewhere/digits.onnx", load_external_data=False)
    assert [opset.version for opset in model.opset_import if not opset.domain] == [exporters.OPSET]
    assert not any(weight.external_data for weight in model.graph.initializer)
    about = json.loads({item.key: item.value for item in model.metadata_props}["mnist_lightning"])
    assert about["test_correct"] == run_0.summary()["test/correct"]
    session = InferenceSession("elsewhere/digits.onnx")
    recognizer = load("0")
    for count in (1, 5, 297):
        (probabilities,) = session.run(["probabilities"], {"pixels": PIXELS[:count]})
        assert probabilities.sum(axis=1) == pytest.approx(np.ones(count), abs=1e-5)
        for row, image in zip(probabilities[:5], PIXELS, strict=False):
            pixels = normalization.normalize(torch.from_numpy(image[None]))
            assert row == pytest.approx(recognizer.probabilities(pixels)[0].numpy(), abs=1e-5)


@pytest.mark.parametrize("kind", ENSEMBLE_FORMATS)
def test_a_program_contains_no_path_of_this_machine(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"model.{FORMATS[kind].suffix}"
    FORMATS[kind].write(Export(Recognizer(ARCHITECTURES["SpeedCNN"]()), False, {}, PIXELS), path)
    content = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            content = b"".join(archive.read(name) for name in archive.namelist())
    assert b".py" not in content
    assert str(Path(__file__).parent.parent.parent).encode() not in content


def test_all_kernels_and_matrices_of_int8_have_8_bits(tmp_path: Path) -> None:
    network = ARCHITECTURES["EquivariantCNN"]()
    path = tmp_path / "model.int8.onnx"
    FORMATS["int8"].write(Export(Recognizer(network), False, {}, PIXELS), path)
    stored = onnx.load(path).graph.initializer
    rounded = [weight for weight in stored if weight.data_type == onnx.TensorProto.INT8]
    shapes = sorted(tuple(weight.dims) for weight in rounded)
    weights = [weight for weight in network.parameters() if weight.ndim > 1]
    assert shapes == sorted(tuple(weight.shape) for weight in weights)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_first_dimension_of_an_onnx_model_is_named_batch(name: str, tmp_path: Path) -> None:
    recognizer = Recognizer(ARCHITECTURES[name]())
    path = tmp_path / "model.onnx"
    FORMATS["onnx"].write(Export(recognizer, False, {}, PIXELS), path)
    graph = onnx.load(path).graph
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {"pixels": ["batch", 28, 28], "logits": ["batch", 10]}
    # Sizes of the values between them may be computed, such as 4*batch.
    sizes = [size for value in graph.value_info for size in value.type.tensor_type.shape.dim]
    assert not {size.dim_param for size in sizes if "batch" not in size.dim_param} - {""}
    session = InferenceSession(path)
    for count in (1, 7):
        (logits,) = session.run(["logits"], {"pixels": PIXELS[:count]})
        expected = FromPixels(recognizer.network)(torch.from_numpy(PIXELS[:count]))
        assert logits == pytest.approx(expected.detach().numpy(), abs=1e-4)


def test_safetensors_are_loaded_without_unpickling_and_predict(
    trained_cli: Command, run_0: Run
) -> None:
    trained_cli("export", "0", "--format", "safetensors")
    path = run_0.folder / "export" / "safetensors" / "model.safetensors"
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["mnist_lightning"])
    assert about["network"]["class_path"] == "mnist_lightning.networks.classic_cnn.ClassicCNN"
    assert (about["mean"], about["std"]) == (normalization.MEAN, normalization.STD)
    assert about["preprocessing"] == mnist_format.VERSION
    exported, original = load(path), load("0")
    assert exported.calibration == original.calibration
    for image in PIXELS[:20]:
        expected = original.predict(image).probabilities
        assert np.array_equal(exported.predict(image).probabilities, expected)
    content = bytearray(path.read_bytes())
    for damaged in (content[: len(content) // 2], b"", b"no tensors", content[:-3]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged or was not written by `export`"):
            load(path)


def test_a_different_network_is_not_exported(tmp_path: Path) -> None:
    recognizer = Recognizer(ARCHITECTURES["ClassicCNN"]())
    about = model_card.metadata(SUMMARY, recognizer)
    kind = FORMATS["pth"]

    def write_another(export: Export, path: Path) -> None:
        kind.write(export._replace(recognizer=Recognizer(ARCHITECTURES["ClassicCNN"]())), path)

    path = tmp_path / "model.pth"
    with pytest.raises(UserError, match=r"differs from the run: .* no file was written"):
        write(
            Export(recognizer, False, about, PIXELS),
            kind._replace(write=write_another),
            PIXELS,
            path,
        )
    assert list(tmp_path.iterdir()) == []


def test_logits_are_compared_image_by_image() -> None:
    expected = np.array([[10.0, 0.0], [0.01, 0.0]], dtype=np.float32)
    kind = FORMATS["onnx"]
    assert compare(expected, expected + np.float32(1e-7), kind).startswith("2 of 2 labels equal")
    changed = expected.copy()
    changed[1, 0] += 1e-5  # relative to the largest logit: 1e-3 in this image, 1e-6 in the other
    for logits in (changed, expected[:, ::-1], np.full_like(expected, np.nan)):
        with pytest.raises(UserError, match="differs from the run"):
            compare(expected, logits, kind)


def test_a_step_that_a_page_does_not_support_is_refused_by_name(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Softsign())
    about = model_card.metadata(SUMMARY, Recognizer(network))
    path = tmp_path / "model.html"
    message = "no JavaScript for abs .supported: adaptive_avg_pool2d, "
    with pytest.raises(UserError, match=message):
        write(Export(Recognizer(network), False, about, PIXELS), FORMATS["html"], PIXELS[:2], path)
    assert list(tmp_path.iterdir()) == []


def test_the_normalization_is_included() -> None:
    network = ARCHITECTURES["SpeedCNN"]().eval()
    inside = FromPixels(network)(torch.from_numpy(PIXELS))
    outside = Recognizer(network).probabilities
    scaled = (
        torch.from_numpy(PIXELS).float()[:, None] / 255 - normalization.MEAN
    ) / normalization.STD
    assert torch.allclose(inside.softmax(dim=1), outside(scaled), atol=1e-6)


def test_mistakes_are_reported(trained_cli: Command) -> None:
    assert "--format" in trained_cli("export", "0").err
    assert "--format: invalid value exe" in trained_cli("export", "0", "--format", "exe").err
    for kind in ("pth", "html"):
        error = trained_cli("export", "--format", kind, "--softmax").err
        assert "--softmax requires --format onnx, int8 or pt2" in error
    result = trained_cli("export", "0", "--format", "pth", "--check_images", "0")
    assert (result.status, "at least 1" in result.err) == (2, True)
    assert "run not found: 7" in trained_cli("export", "7", "--format", "pth").err
    Path("file").write_text("in the way")
    assert trained_cli("export", "0", "--format", "pth", "--output", "file/model.pth").status == 1


@pytest.mark.mnist
def test_all_ten_thousand_labels_agree(command: Command, mnist_dir: Path) -> None:
    config = Path(__file__).parent.parent.parent / "configs" / "speedrun.yaml"
    where = ("--data.data_dir", str(mnist_dir))
    assert command("fit", "--config", str(config), "--dashboards", "none", *where).status == 0
    for kind in FORMATS:
        result = command("export", "0", "--format", kind, "--check_images", "10000")
        min_equal = 9_995 if kind in ("html", "int8") else 10_000
        assert _equal(result.out, 10_000) >= min_equal
