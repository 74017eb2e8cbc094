"""Image files that cost much more than their size suggests."""

import re
import struct
import zlib

from PIL import Image

from tests.images import draw_seven, encode


def scan_bomb(side: int = 9000, scans: int = 2000) -> bytes:
    """A progressive JPEG of a seven with so many scans, most of them empty: 804 kB by default."""
    whole = encode(draw_seven(size=side, width=side // 15), "jpeg", progressive=True)
    blank = encode(Image.new("L", (side, side), 255), "jpeg", progressive=True)
    segments = jpeg_segments(blank)
    tables = segments[-2][0] == 0xC4  # the last scan may have a Huffman table of its own
    empty = blank[segments[-2 if tables else -1][1] :].removesuffix(b"\xff\xd9")
    count = sum(marker == 0xDA for marker, _ in jpeg_segments(whole))
    return whole.removesuffix(b"\xff\xd9") + empty * (scans - count) + b"\xff\xd9"


def jpeg_segments(content: bytes) -> list[tuple[int, int]]:
    """The markers of a JPEG and where they are."""
    found, at = [], 2
    while content[at + 1] != 0xD9:
        marker = content[at + 1]
        found.append((marker, at))
        at += 2 + struct.unpack_from(">H", content, at + 2)[0]
        if marker == 0xDA:
            following = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]").search(content, at)
            assert following is not None
            at = following.start()
    return found


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png_with(chunks: bytes) -> bytes:
    """A PNG with more chunks after its header."""
    whole = encode(draw_seven(), "png")
    return whole[:33] + chunks + whole[33:]


def gif_with(blocks: bytes) -> bytes:
    """A GIF with more blocks before its image."""
    whole = encode(draw_seven(), "gif")
    begin = 13 + (3 * 2 ** (1 + (whole[10] & 7)) if whole[10] & 0x80 else 0)
    return whole[:begin] + blocks + whole[begin:]


def slow_webp() -> bytes:
    """A valid image that takes seconds: 120 megapixels."""
    return encode(Image.new("RGB", (12_000, 10_000), "white"), "webp", lossless=True, method=0)
