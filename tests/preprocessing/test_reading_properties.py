"""Random changes of an image that do not change its label; and hostile files."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mnist_lightning import Recognizer, load
from mnist_lightning.cli.main import main
from mnist_lightning.data.synthetic import draw_digits
from mnist_lightning.preprocessing import mnist_format
from tests.conftest import Command
from tests.images import draw_seven, gives_seven

DIGITS, LABELS = draw_digits(40, seed=9)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that predicts clean digits correctly."""
    folder = tmp_path_factory.mktemp("recognizer")
    torch.set_num_threads(1)
    options = ["--data.dataset", "strokes", "--model.network", "BatchNormCNN"]
    options += ["--data.augment", "Deformation", "--model.optimizer.lr", "0.003"]
    options += ["--trainer.max_epochs", "5", "--dashboards", "none"]
    assert main(["fit", *options, "--trainer.default_root_dir", str(folder)]) == 0
    return folder / "lightning_logs" / "version_0"


@pytest.fixture(scope="module")
def recognizer(run: Path) -> Recognizer:
    """The network of the run."""
    return load(run)


def test_the_reader_reads_clean_digits(recognizer: Recognizer) -> None:
    labels = [recognizer.predict(digit).label for digit in DIGITS]
    assert labels == LABELS.tolist()


@settings(max_examples=150)
@given(
    index=st.integers(0, len(DIGITS) - 1),
    dark=st.booleans(),
    contrast=st.floats(0.4, 1.0),
    scale=st.floats(2.0, 16.0),
    padding=st.tuples(*[st.floats(0.05, 1.5)] * 4),
    form=st.sampled_from(["png", "jpeg", "bmp", "gif", "tiff", "webp"]),
    mode=st.sampled_from(["L", "RGB", "P", "CMYK", "LA", "RGBA", "I;16"]),
)
def test_polarity_place_scale_padding_and_file_format_change_no_label(
    recognizer: Recognizer,
    index: int,
    dark: bool,
    contrast: float,
    scale: float,
    padding: tuple[float, float, float, float],
    form: str,
    mode: str,
) -> None:
    ink = mnist_format.crop_to_ink(DIGITS[index])
    size = round(scale * ink.shape[1]), round(scale * ink.shape[0])
    large = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BICUBIC))
    left, top, right, bottom = (round(share * 20 * scale) for share in padding)
    light = contrast * np.pad(large, ((top, bottom), (left, right)))
    gray = np.rint(255 - light if dark else light).astype(np.uint8)
    if form not in ("png", "tiff"):  # Pillow cuts 16 bits off for the others, without an error
        mode = mode.replace("I;16", "L")
    buffer = io.BytesIO()
    try:
        as_mode(gray, mode).save(buffer, form, quality=90)
    except (OSError, ValueError):  # the format does not support the mode
        as_mode(gray, "L").save(buffer, form, quality=90)
    (reading,) = recognizer.read(mnist_format.read(io.BytesIO(buffer.getvalue())))
    assert reading.label == LABELS[index]
    assert reading.digit.dark == dark


def as_mode(gray: NDArray[np.uint8], mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(gray.astype(np.uint16) * 257)
    return Image.fromarray(gray).convert(mode)


def png(width: int, height: int, content: bytes) -> bytes:
    """Return a PNG file of 1 bit per pixel with any size in its header and any content."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def jpeg_with_exif(exif: bytes) -> bytes:
    buffer = io.BytesIO()
    draw_seven().save(buffer, "jpeg", quality=95)
    whole = buffer.getvalue()
    body = b"Exif\0\0" + exif
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + whole[2:]


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        (b"", "not an image of a supported format"),
        (b"seven", "not an image of a supported format"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop",
            "not an image of a supported format",
        ),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "save the image as JPEG"),
        (png(60_000, 60_000, zlib.compress(bytes(10_000_000))), "too large"),  # a bomb
        (png(2**31 - 1, 2**31 - 1, b""), "too large"),
        (png(200, 200, zlib.compress(bytes(100))), "damaged"),
        (png(200, 200, b"no zlib"), "damaged"),
        (png(1, 1, zlib.compress(b"\0\0")), "no digit"),
        (png(0, 5, zlib.compress(b"")), "not an image|damaged|empty"),
    ],
)
def test_a_hostile_file_is_reported_in_one_line(
    content: bytes, messages: str, run: Path, command: Command
) -> None:
    Path("harm.png").write_bytes(content)
    result = command("predict", "harm.png", "--run", str(run))
    assert result.status == 1
    assert result.err == ""
    (line,) = result.out.splitlines()
    assert line.startswith("harm.png  - ")
    assert any(part in line for part in messages.split("|"))


@settings(max_examples=60)
@given(
    exif=st.binary(max_size=200)
    | st.binary(max_size=60).map(lambda body: b"MM\0*\0\0\0\x08" + body)
)
def test_damaged_exif_data_changes_nothing(exif: bytes) -> None:
    image = mnist_format.read(io.BytesIO(jpeg_with_exif(exif)))
    if image.getexif().get(274, 1) in (0, 1) or image.getexif().get(274, 1) > 8:
        assert gives_seven(image)


@settings(max_examples=150)
@given(cut=st.integers(0, 3000), at=st.integers(0, 3000), put=st.binary(max_size=8))
def test_a_damaged_file_is_read_or_refused(cut: int, at: int, put: bytes) -> None:
    for form in ("png", "jpeg", "gif", "webp", "tiff"):
        buffer = io.BytesIO()
        draw_seven().save(buffer, form)
        content = bytearray(buffer.getvalue()[: max(1, len(buffer.getvalue()) - cut)])
        content[at : at + len(put)] = put
        with contextlib.suppress(ValueError):
            digits = mnist_format.find_digits(mnist_format.read(io.BytesIO(bytes(content))))
            assert all(digit.ink.shape == (28, 28) for digit in digits)


def test_a_hundred_megapixels_are_read() -> None:
    large = draw_seven(size=10_000, width=500)
    buffer = io.BytesIO()
    large.save(buffer, "png", compress_level=1)
    (digit,) = mnist_format.find_digits(mnist_format.read(io.BytesIO(buffer.getvalue())))
    assert digit.box[2] - digit.box[0] == pytest.approx(4250, rel=0.01)
    assert gives_seven(large)
