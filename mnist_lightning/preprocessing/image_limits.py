"""Refuse image files that cost far more to decode than their size suggests.

Pillow checks the number of pixels. The limits here concern the structure of a file: a decoder
processes each scan of a JPEG, each chunk, block or tag, whatever its size. Normal files stay far
below every limit. `extraction_process.py` limits the time of everything else.

Needs the standard library only.
"""

import re
import struct
from collections.abc import Callable
from typing import NoReturn

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp")

# Cameras and web tools write 1 to 12 scans; libjpeg-turbo's own fuzzers stop at 500.
MAX_SCANS = 100
# A scan costs time for each pixel, even if it is empty: 0.18 s per 10^9, measured on one core.
MAX_SCANNED_PIXELS = 3_000_000_000
MAX_PARTS = 10_000  # markers, chunks, blocks or strips; Pillow handles each in Python
BYTES_PER_PART = 1024  # a large file may have more parts, if they are of a normal length
MAX_SEGMENTS = 500  # with metadata, of a JPEG: 32 MB; Pillow joins and parses them in Python
MAX_TAGS = 1_000  # of a TIFF directory; cameras write about 50
# Pillow decodes some formats in Python: 1 to 3 seconds for this many bytes.
MAX_PYTHON_DECODED = 5_000_000

# In compressed JPEG data FF is followed by 00 (a data byte) or D0 to D7 (a restart).
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_NO_LENGTH = {0x01, *range(0xD0, 0xD9)}  # markers that consist of two bytes
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start of frame: holds height and width
_PROGRESSIVE = (0xC2, 0xC6)
_ARITHMETIC = {*range(0xC9, 0xD0)} - {0xCC}  # its decoder continues after the end of the data
# PPM with 8 or 16 bits; Pillow decodes other depths sample by sample, in Python.
_FAST_PPM = re.compile(rb"P(4\s|[56]\s+(#[^\n]*\n\s*)*\d+\s+(#[^\n]*\n\s*)*\d+\s+(255|65535)\s)")
_TIFF_TYPE_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TIFF_SIDES = {256: 322, 257: 323}  # width and height, of the image and of a tile
MAX_TILE = 1024  # pixels
_TIFF_STRIPS = (273, 324)  # StripOffsets, TileOffsets
_TIFF_COMPRESSION, _TIFF_JPEG = 259, (6, 7)


class RefusedError(ValueError):
    """A file costs too much to decode."""


def _refuse(reason: str) -> NoReturn:
    raise RefusedError(f"Refused: {reason}")


def check(content: bytes) -> None:
    """Check the structure of an image file of any format; the decoder checks its validity.

    Raises:
        RefusedError: it exceeds a limit.
    """
    for signature, check_format in _CHECKS.items():
        if content.startswith(signature):
            try:
                check_format(content)
            except (IndexError, struct.error):
                return  # truncated: the decoder reports it


class _Parts:
    """Counts the parts of a file, and refuses it as soon as there are too many."""

    def __init__(self, content: bytes, kind: str) -> None:
        self.limit = MAX_PARTS + len(content) // BYTES_PER_PART
        self.kind = kind
        self.count = 0

    def add(self, count: int = 1) -> None:
        self.count += count
        if self.count > self.limit:
            _refuse(
                f"{self.kind}; the limit for a file of this size is {self.limit:,}. "
                "Save it as a new PNG."
            )


def _check_jpeg(content: bytes) -> None:
    """Count the scans and the markers; a padding byte counts as a marker."""
    at, scans, segments, pixels, kind = 2, 0, 0, 0, "JPEG"
    parts = _Parts(content, "JPEG with too many markers")
    while at + 4 <= len(content):
        parts.add()
        marker = content[at + 1]
        if content[at] != 0xFF or marker in (0x00, 0xFF):
            at += 1
            continue
        if marker in _NO_LENGTH:
            at += 2
            continue
        if marker == 0xD9:
            break
        (length,) = struct.unpack_from(">H", content, at + 2)
        segments += 0xE0 <= marker <= 0xEF
        if segments > MAX_SEGMENTS:
            _refuse(f"JPEG with more than {MAX_SEGMENTS} segments of metadata. Save it as PNG.")
        if marker in _ARITHMETIC:
            _refuse("JPEG with arithmetic coding, which is rare. Save it as PNG.")
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", content, at + 5)
            pixels = max(pixels, height * width)
            kind = "progressive JPEG" if marker in _PROGRESSIVE else "JPEG"
        at += 2 + length
        if marker == 0xDA:
            scans += 1
            next_marker = _MARKER.search(content, at)
            if next_marker is None:
                break
            at = next_marker.start()
    limit = min(MAX_SCANS, MAX_SCANNED_PIXELS // max(pixels, 1))
    if scans > limit:
        _refuse(f"{kind} with {scans:,} scans; the limit is {limit:,}. Save it as PNG.")


def _check_png(content: bytes) -> None:
    at, profiles, parts = 8, 0, _Parts(content, "PNG with too many chunks")
    while at + 8 <= len(content):
        parts.add()
        (length,) = struct.unpack_from(">I", content, at)
        profiles += content[at + 4 : at + 8] == b"iCCP"
        if profiles > 1:
            _refuse("PNG with several color profiles. Save it as a new PNG.")
        at += 12 + length


def _check_gif(content: bytes) -> None:
    """Count the blocks before the first image; the later images are not read."""
    at, parts = 13, _Parts(content, "GIF with too many blocks before its first image")
    if content[10] & 0x80:
        at += 3 * 2 ** (1 + (content[10] & 7))
    while content[at] != 0x2C:
        parts.add()
        if content[at] != 0x21:  # Pillow skips this byte
            at += 1
            continue
        at += 2
        while content[at]:
            parts.add()
            at += 1 + content[at]
        at += 1


def _check_bmp(content: bytes) -> None:
    (compression,) = struct.unpack_from("<I", content, 30)
    if compression in (1, 2):
        _refuse_python_decoded("run-length encoded BMP", content)


def _check_ppm(content: bytes) -> None:
    # Pillow reads a comment byte by byte: a long one counts as slow, too.
    if not _FAST_PPM.match(content[:1000]):
        _refuse_python_decoded("PPM as text, or with an unusual number of bits", content)


def _refuse_python_decoded(kind: str, content: bytes) -> None:
    if len(content) > MAX_PYTHON_DECODED:
        size, limit = f"{len(content):,} bytes", f"{MAX_PYTHON_DECODED:,}"
        _refuse(f"{kind} with {size}; the limit is {limit}. Save it as PNG.")


def _check_tiff(content: bytes) -> None:
    """Check the first directory: the later ones are not read."""
    if content.startswith(b"MM\0+"):  # Pillow reads its first numbers as those of a classic TIFF
        _refuse("big-endian BigTIFF. Save it as PNG.")
    order = "<" if content.startswith(b"I") else ">"
    big = content[2:3] == b"+"  # BigTIFF, with 64-bit numbers
    (at,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", content, 8 if big else 4)
    (tags,) = struct.unpack_from(f"{order}Q" if big else f"{order}H", content, at)
    if tags > MAX_TAGS:
        _refuse(f"TIFF with {tags:,} tags; the limit is {MAX_TAGS:,}. Save it as PNG.")
    at += 8 if big else 2
    total, strips, compression = 0, 0, 0
    sides: dict[int, int] = {}
    for place in range(at, at + tags * (20 if big else 12), 20 if big else 12):
        tag, kind = struct.unpack_from(f"{order}HH", content, place)
        (count,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", content, place + 4)
        total += count * _TIFF_TYPE_SIZES.get(kind, 1)
        if tag in _TIFF_STRIPS:
            strips = max(strips, count)
        if tag in (*_TIFF_SIDES, *_TIFF_SIDES.values()):
            number = "Q" if kind == 16 else "H" if kind == 3 else "I"
            (sides[tag],) = struct.unpack_from(order + number, content, place + (12 if big else 8))
        if tag == _TIFF_COMPRESSION:
            (compression,) = struct.unpack_from(f"{order}H", content, place + (12 if big else 8))
    if total > len(content):
        _refuse(f"TIFF with {total:,} bytes of tags in a file of {len(content):,} bytes.")
    # A tile is decoded as a whole, even if most of it lies outside the image.
    for side, tile_side in _TIFF_SIDES.items():
        if sides.get(tile_side, 0) > max(MAX_TILE, 2 * sides.get(side, 0)):
            _refuse("TIFF with tiles much larger than the image. Save it as PNG.")
    _Parts(content, "TIFF with too many strips").add(strips)
    if compression in _TIFF_JPEG:
        scans = content.count(b"\xff\xda")
        if scans > max(strips, 1) * 4:  # one scan in each strip is usual, one per channel allowed
            _refuse(f"TIFF with {scans:,} JPEG scans in {strips:,} strips. Save it as PNG.")


_CHECKS: dict[bytes, Callable[[bytes], None]] = {
    b"\xff\xd8": _check_jpeg,
    b"\x89PNG\r\n\x1a\n": _check_png,
    b"GIF8": _check_gif,
    b"BM": _check_bmp,
    b"P": _check_ppm,
    b"II": _check_tiff,
    b"MM": _check_tiff,
}
