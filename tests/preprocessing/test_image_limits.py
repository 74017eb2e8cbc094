"""Reading any image file needs bounded time and memory, and does not stop the program."""

import io
import resource
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.extraction_process import (
    ExtractedDigits,
    ExtractionProcess,
    NoDigitError,
    UnreadableError,
)
from mnist_lightning.preprocessing.image_limits import RefusedError
from tests.image_bombs import gif_with, png_chunk, png_with, scan_bomb, slow_webp
from tests.images import draw_seven, encode


@pytest.fixture
def process() -> Iterator[ExtractionProcess]:
    process = ExtractionProcess()
    yield process
    process.stop()


def find_digits(process: ExtractionProcess, content: bytes) -> ExtractedDigits:
    process.send(content, None)
    result = process.answer()
    assert result is not None
    return result


def test_a_scan_bomb_is_refused_at_once_with_the_limit() -> None:
    for side, limit in ((9000, 37), (1000, 100)):
        bomb = io.BytesIO(scan_bomb(side))
        started = time.process_time()
        message = (
            rf"Refused: progressive JPEG with 2,000 scans; the limit is {limit}\. Save it as PNG"
        )
        with pytest.raises(RefusedError, match=message):
            mnist_format.read(bomb)
        assert time.process_time() - started < 0.5


def test_a_jpeg_with_arithmetic_coding_is_refused() -> None:
    frame = b"\xff\xca\x00\x0b\x08" + struct.pack(">HH", 100, 100) + b"\x01\x01\x11\x00"
    with pytest.raises(RefusedError, match="JPEG with arithmetic coding"):
        mnist_format.read(io.BytesIO(b"\xff\xd8" + frame + b"\xff\xd9"))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(4000, 3000), (8200, 6100)])
def test_photos_of_phones_are_accepted(
    size: tuple[int, int], progressive: bool, process: ExtractionProcess
) -> None:
    photo = draw_seven(size=400).convert("RGB").resize(size)
    content = encode(photo, "jpeg", progressive=progressive, quality=90)
    expected = mnist_format.find_digits(Image.open(io.BytesIO(content)))
    for digits in (
        mnist_format.find_digits(mnist_format.read(io.BytesIO(content))),
        find_digits(process, content).digits,
    ):
        assert len(digits) == len(expected) == 1
        assert np.array_equal(digits[0].ink, expected[0].ink)
        assert digits[0][1:] == expected[0][1:]


PIXEL = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)


def tiff_with(tags: list[tuple[int, int, int]]) -> bytes:
    entries = b"".join(struct.pack("<HHII", *tag, 0) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def bmp(data: bytes) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 12_000, 10_000, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(data), 0, 0, 1078) + header + bytes(1024) + data


REFUSED = {
    "a million chunks": png_with(png_chunk(b"tEXt", b"a\0b") * 1_000_000),
    "a million blocks": gif_with(b"!\xfe" + b"\x01a" * 1_000_000 + b"\0"),
    "blocks without an image": gif_with(b"")[:13] + b"!\xfe" + b"\x01a" * 1_000_000,
    "a million markers": b"\xff\xd8" + b"\xff\xfe\0\x02" * 1_000_000,
    "Exif": b"\xff\xd8" + (b"\xff\xe1\0\x10Exif\0\0" + bytes(8)) * 9_000,
    "color profiles": png_with(png_chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(2**20))) * 2),
    "padding": b"\xff\xd8" + b"\xff" * 3_000_000,
    "no segments": b"\xff\xd8\xff\xfe\0\x02" + b"\0\0" * 1_000_000,
    "run lengths": bmp(b"\x01\xff" * 3_000_000),
    "text": b"P2 3000 3000 255\n" + b"7 " * 3_000_000,
    "a depth that is decoded in Python": b"P5 3000 3000 254\n" + bytes(9_000_000),
    "a long comment": b"P5 #" + b"a" * 6_000_000 + b"\n1 1 255\n\0",
    "tags": tiff_with([(1000 + n, 7, 10) for n in range(2_000)]),
    "tags that share bytes": tiff_with([(1000 + n, 7, 3_000) for n in range(900)]),
    "strips": tiff_with([(273, 4, 100_000)]) + bytes(1_000_000),
}


@pytest.mark.parametrize("name", REFUSED)
def test_too_many_parts_are_refused(name: str) -> None:
    started = time.process_time()
    with pytest.raises(RefusedError, match=r"^Refused: "):
        mnist_format.read(io.BytesIO(REFUSED[name]))
    assert time.process_time() - started < 1


@pytest.mark.parametrize("size", [(1, 100_000), (100_000, 1)])
def test_an_extreme_shape_is_too_large(size: tuple[int, int]) -> None:
    with pytest.raises(mnist_format.TooLargeError, match="65,535 pixels a side"):
        mnist_format.read(io.BytesIO(encode(Image.new("L", size), "png")))


def test_a_file_is_not_read_beyond_the_limit(tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(10**10)  # sparse
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(mnist_format.TooLargeError, match="the limit is 481 megabytes"):
        mnist_format.read(tmp_path / "huge.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_500_000  # kB


OPTIONS: dict[str, dict[str, Any]] = {
    "png": {},
    "jpeg": {"progressive": True},
    "gif": {"save_all": True, "append_images": [draw_seven(size=40, ink=99)]},
    "bmp": {},
    "tiff": {"compression": "tiff_deflate"},
    "webp": {},
    "ppm": {},
}
INTACT = {kind: encode(draw_seven(size=40), kind, **options) for kind, options in OPTIONS.items()}


@settings(max_examples=400, deadline=10_000)
@given(st.data())
def test_a_mutated_file_is_read_or_refused(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(INTACT)))
    content = bytearray(INTACT[kind])
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, min(len(content) - 1, 400)))  # mostly headers
        change = data.draw(st.sampled_from(["byte", "number", "repeat", "cut", "drop"]))
        if change == "byte":
            content[at] = data.draw(st.integers(0, 255))
        elif change == "number":
            number = data.draw(st.sampled_from([0, 1, 255, 65_535, 2**31 - 1, 2**32 - 1]))
            order = data.draw(st.sampled_from("<>"))
            content[at : at + 4] = struct.pack(f"{order}I", number)
        elif change == "repeat":
            length = data.draw(st.integers(1, 200))
            content[at:at] = content[at : at + length] * data.draw(st.integers(1, 50))
        elif change == "cut":
            del content[max(at, 1) :]
        else:
            del content[at : at + data.draw(st.integers(1, 20))]
        if len(content) < 2:
            break
    try:
        image = mnist_format.read(io.BytesIO(bytes(content)))
        if image.width * image.height < 4_000_000:
            mnist_format.find_digits(image)
    except (OSError, ValueError):
        pass


@settings(max_examples=100, deadline=10_000)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 20), st.integers(0, 7))
def test_any_header_of_a_png_is_read_or_refused(
    width: int, height: int, bits: int, kind: int
) -> None:
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 1)
    content = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    content += png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b"")
    with pytest.raises((ValueError, OSError)):
        mnist_format.find_digits(mnist_format.read(io.BytesIO(content)))


@pytest.mark.slow
def test_patterns_are_read_in_bounded_time() -> None:
    rows, columns = np.mgrid[:1599, :1599]
    generator = np.random.default_rng(0)
    patterns = {
        "dots": np.where((rows % 4 == 0) & (columns % 4 == 0), 0, 255),
        "checkers": 255 * ((rows + columns) % 2),
        "noise": generator.integers(0, 256, rows.shape),
        "comb": np.where((columns % 2 == 0) | (rows == 0), 0, 255),
    }
    for name, pattern in patterns.items():
        started = time.process_time()
        with suppress(ValueError):
            mnist_format.find_digits(Image.fromarray(pattern.astype(np.uint8)))
        assert time.process_time() - started < 5, name


def test_a_process_stops_after_the_time_limit(
    process: ExtractionProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_lightning.preprocessing.extraction_process.MAX_SECONDS", 0.3)
    process.send(slow_webp(), None)
    assert process.answer(0.05) is None
    with pytest.raises(UnreadableError, match="takes more than 0 s to decode"):
        process.answer()
    assert not process.alive


def test_a_process_raises_the_same_errors(process: ExtractionProcess) -> None:
    for content, kind, message in (
        (b"no image", UnreadableError, "not an image of a supported format"),
        (encode(Image.new("L", (50, 50), 255), "png"), NoDigitError, "contrast is too low"),
        (encode(Image.new("1", (13_000, 13_000)), "png"), mnist_format.TooLargeError, "megapixels"),
        (scan_bomb(1000), UnreadableError, "2,000 scans"),
    ):
        with pytest.raises(kind, match=message):
            find_digits(process, content)
    assert len(find_digits(process, encode(draw_seven(), "png")).digits) == 1


def test_a_crash_of_the_process_is_reported(process: ExtractionProcess) -> None:
    process._process.kill()
    process._process.wait()
    assert not process.alive
    with pytest.raises(UnreadableError, match="the decoder crashed"):
        find_digits(process, encode(draw_seven(), "png"))


@pytest.mark.parametrize("prefix", TiffImagePlugin.PREFIXES)
def test_pillow_and_the_check_read_the_same_directory(prefix: bytes) -> None:
    """The directory of classic TIFF has too many strips; the directory of BigTIFF is empty."""
    order, strips = "<" if prefix.startswith(b"I") else ">", 400_000
    tags = {256: 80, 257: 80, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1, 273: 24}
    entries = [
        struct.pack(f"{order}HHII", tag, 4, strips if tag == 273 else 1, value)
        for tag, value in sorted(tags.items())
    ]
    place = 24 + 4 * strips
    start = struct.pack(f"{order}IQQ", place, 16, 0)
    directory = struct.pack(f"{order}H", len(tags)) + b"".join(entries) + bytes(4)
    started = time.process_time()
    with pytest.raises(ValueError, match=r"Refused|not an image"):
        mnist_format.read(io.BytesIO(prefix + start + bytes(4 * strips) + directory))
    assert time.process_time() - started < 1


def test_a_tile_much_larger_than_the_image_is_refused() -> None:
    side, tags = 46_320, []
    for tag, kind, value in (
        *((256, 4, 28), (257, 4, 28), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)),
        *((322, 4, side), (323, 4, side), (324, 4, 200), (325, 4, 50)),
    ):
        number = struct.pack("<HH" if kind == 3 else "<I", *([value, 0] if kind == 3 else [value]))
        tags.append(struct.pack("<HHI", tag, kind, 1) + number)
    content = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(tags) + bytes(4)
    with pytest.raises(RefusedError, match="tiles much larger than the image"):
        mnist_format.read(io.BytesIO(content + bytes(300)))
