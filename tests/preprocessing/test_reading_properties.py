"""What a label does not hang on, tried at random; and files that mean harm."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mnist_lightning import Recognizer, load
from mnist_lightning.cli.main import main
from mnist_lightning.data.synthetic import draw_digits
from mnist_lightning.preprocessing import mnist_format
from tests.conftest import Command
from tests.preprocessing.test_ink_extraction import drawn, like_the_seven

DIGITS, LABELS = draw_digits(40, seed=9)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose network reads clean digits."""
    folder = tmp_path_factory.mktemp("reader")
    torch.set_num_threads(1)
    options = ["--data.dataset", "strokes", "--model.network", "BatchNormCNN"]
    options += ["--data.augment", "Deformation", "--model.optimizer.lr", "0.003"]
    options += ["--trainer.max_epochs", "5", "--dashboards", "none"]
    assert main(["fit", *options, "--trainer.default_root_dir", str(folder)]) == 0
    return folder / "lightning_logs" / "version_0"


@pytest.fixture(scope="module")
def reader(run: Path) -> Recognizer:
    """That network."""
    return load(run)


def test_the_reader_reads_clean_digits(reader: Recognizer) -> None:
    read = [reader.predict(digit).label for digit in DIGITS]
    assert read == LABELS.tolist()


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(
    which=st.integers(0, len(DIGITS) - 1),
    dark=st.booleans(),
    contrast=st.floats(0.4, 1.0),
    scale=st.floats(2.0, 16.0),
    padding=st.tuples(*[st.floats(0.05, 1.5)] * 4),
    form=st.sampled_from(["png", "jpeg", "bmp", "gif", "tiff", "webp"]),
    mode=st.sampled_from(["L", "RGB", "P", "CMYK", "LA", "RGBA", "I;16"]),
)
def test_polarity_place_scale_padding_and_file_format_change_no_label(
    reader: Recognizer,
    which: int,
    dark: bool,
    contrast: float,
    scale: float,
    padding: tuple[float, float, float, float],
    form: str,
    mode: str,
) -> None:
    ink = mnist_format.crop_to_ink(DIGITS[which])
    size = round(scale * ink.shape[1]), round(scale * ink.shape[0])
    large = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BICUBIC))
    left, top, right, bottom = (round(share * 20 * scale) for share in padding)
    light = contrast * np.pad(large, ((top, bottom), (left, right)))
    gray = np.rint(255 - light if dark else light).astype(np.uint8)
    buffer = io.BytesIO()
    try:
        as_mode(gray, mode).save(buffer, form, quality=90)
    except (OSError, ValueError):  # a format that does not know the mode
        as_mode(gray, "L").save(buffer, form, quality=90)
    (reading,) = reader.read(mnist_format.read(io.BytesIO(buffer.getvalue())))
    assert reading.label == LABELS[which]
    assert reading.digit.dark == dark


def as_mode(gray: NDArray[np.uint8], mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(gray.astype(np.uint16) * 257)
    return Image.fromarray(gray).convert(mode)


def png(width: int, height: int, content: bytes) -> bytes:
    """A PNG file of 1 bit a pixel, whatever it claims and holds."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def jpeg_with_exif(exif: bytes) -> bytes:
    buffer = io.BytesIO()
    drawn().save(buffer, "jpeg", quality=95)
    whole = buffer.getvalue()
    body = b"Exif\0\0" + exif
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + whole[2:]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no picture that can be read"),
        (b"seven", "no picture that can be read"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop",
            "no picture that can be read",
        ),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "save it as JPEG"),
        (png(60_000, 60_000, zlib.compress(bytes(10_000_000))), "too large"),  # a bomb
        (png(2**31 - 1, 2**31 - 1, b""), "too large"),
        (png(200, 200, zlib.compress(bytes(100))), "damaged"),
        (png(200, 200, b"no zlib"), "damaged"),
        (png(1, 1, zlib.compress(b"\0\0")), "no digit"),
        (png(0, 5, zlib.compress(b"")), "no picture|damaged|empty"),
    ],
)
def test_a_file_that_means_harm_gets_a_line(
    content: bytes, said: str, run: Path, command: Command
) -> None:
    Path("harm.png").write_bytes(content)
    result = command("predict", "harm.png", "--run", str(run))
    assert result.status == 1
    assert result.err == ""
    (line,) = result.out.splitlines()
    assert line.startswith("harm.png  - ")
    assert any(part in line for part in said.split("|"))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    exif=st.binary(max_size=200)
    | st.binary(max_size=60).map(lambda body: b"MM\0*\0\0\0\x08" + body)
)
def test_notes_of_the_camera_that_cannot_be_read_change_nothing(exif: bytes) -> None:
    picture = mnist_format.read(io.BytesIO(jpeg_with_exif(exif)))
    if picture.getexif().get(274, 1) in (0, 1) or picture.getexif().get(274, 1) > 8:
        assert like_the_seven(picture)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cut=st.integers(0, 3000), at=st.integers(0, 3000), put=st.binary(max_size=8))
def test_a_damaged_file_is_read_or_refused(cut: int, at: int, put: bytes) -> None:
    for form in ("png", "jpeg", "gif", "webp", "tiff"):
        buffer = io.BytesIO()
        drawn().save(buffer, form)
        content = bytearray(buffer.getvalue()[: max(1, len(buffer.getvalue()) - cut)])
        content[at : at + len(put)] = put
        with contextlib.suppress(ValueError):
            found = mnist_format.find_digits(mnist_format.read(io.BytesIO(bytes(content))))
            assert all(digit.ink.shape == (28, 28) for digit in found)


def test_a_hundred_megapixels_are_read() -> None:
    large = drawn(size=10_000, width=500)
    buffer = io.BytesIO()
    large.save(buffer, "png", compress_level=1)
    (digit,) = mnist_format.find_digits(mnist_format.read(io.BytesIO(buffer.getvalue())))
    assert digit.box[2] - digit.box[0] == pytest.approx(4250, rel=0.01)
    assert like_the_seven(large)
