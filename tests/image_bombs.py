"""Image files that need much more time or memory than their size suggests."""

import re
import struct
import zlib

from PIL import Image

from tests.images import draw_seven, encode


def scan_bomb(side: int = 9000, scans: int = 2000) -> bytes:
    """Return a progressive JPEG of a seven with many empty scans: 804 kB by default."""
    content = encode(draw_seven(size=side, width=side // 15), "jpeg", progressive=True)
    blank = encode(Image.new("L", (side, side), 255), "jpeg", progressive=True)
    segments = jpeg_segments(blank)
    tables = segments[-2][0] == 0xC4  # the last scan may have a Huffman table of its own
    empty = blank[segments[-2 if tables else -1][1] :].removesuffix(b"\xff\xd9")
    count = sum(marker == 0xDA for marker, _ in jpeg_segments(content))
    return content.removesuffix(b"\xff\xd9") + empty * (scans - count) + b"\xff\xd9"


def jpeg_segments(content: bytes) -> list[tuple[int, int]]:
    """Return the markers of a JPEG with their positions."""
    markers, position = [], 2
    while content[position + 1] != 0xD9:
        marker = content[position + 1]
        markers.append((marker, position))
        position += 2 + struct.unpack_from(">H", content, position + 2)[0]
        if marker == 0xDA:
            following = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]").search(content, position)
            assert following is not None
            position = following.start()
    return markers


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png_with(chunks: bytes) -> bytes:
    """Return a PNG with these chunks after its header."""
    content = encode(draw_seven(), "png")
    return content[:33] + chunks + content[33:]


def gif_with(blocks: bytes) -> bytes:
    """Return a GIF with these blocks before its image."""
    content = encode(draw_seven(), "gif")
    begin = 13 + (3 * 2 ** (1 + (content[10] & 7)) if content[10] & 0x80 else 0)
    return content[:begin] + blocks + content[begin:]


def slow_webp() -> bytes:
    """Return a valid image that takes seconds to decode: 120 megapixels."""
    return encode(Image.new("RGB", (12_000, 10_000), "white"), "webp", lossless=True, method=0)
