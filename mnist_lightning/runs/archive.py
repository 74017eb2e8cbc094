"""Check before loading that the archive of a checkpoint does not expand.

`torch.save` stores every entry uncompressed, so that what a checkpoint holds is no larger than its
file. The archive's directory is parsed here as miniz, torch's reader, does it: by Python's
`zipfile` a crafted file may have another directory.
"""

import struct
from collections.abc import Iterator

MAX_ENTRIES = 100_000  # one for each tensor, and about six more

_END, _END_64, _LOCATOR_64, _ENTRY = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x01\x02"


def find_excess(content: bytes) -> str | None:
    """Say why an archive is not one of `torch.save`, or would expand; None if it is fine."""
    if not content.startswith(b"PK\x03\x04"):
        return "it is not a zip archive, as torch.save writes"
    try:
        count, at = _directory(content)
        if count > MAX_ENTRIES:
            return f"it has {count:,} entries; the limit is {MAX_ENTRIES:,}"
        spans = []
        for _ in range(count):
            method, packed, unpacked, begin, length = _entry(content, at)
            if method != 0 or packed != unpacked:
                return "its entries are compressed; torch.save stores them as they are"
            spans.append((begin, begin + 30 + unpacked))
            at += length
    except (struct.error, ValueError, StopIteration):
        return "its directory is damaged"
    spans.sort()
    ends = [0, *(end for _, end in spans)]
    if any(begin < end for (begin, _), end in zip(spans, ends, strict=False)):
        return "its entries overlap"
    if ends[-1] > len(content):
        return "its entries are larger than the file"
    return None


def _directory(content: bytes) -> tuple[int, int]:
    """The number of entries, and where the directory begins."""
    end = content.rfind(_END, max(0, len(content) - 65_557))
    if end < 0:
        raise ValueError
    count, _, begin = struct.unpack_from("<HII", content, end + 10)
    locator = end - 20
    if locator >= 0 and content.startswith(_LOCATOR_64, locator):
        (at,) = struct.unpack_from("<Q", content, locator + 8)
        if not content.startswith(_END_64, at):
            raise ValueError
        count, _, begin = struct.unpack_from("<QQQ", content, at + 32)
    return count, begin


def _entry(content: bytes, at: int) -> tuple[int, int, int, int, int]:
    """An entry's method, compressed size, size, and place; and the length of its record."""
    if not content.startswith(_ENTRY, at):
        raise ValueError
    (method,) = struct.unpack_from("<H", content, at + 10)
    packed, unpacked, name, extra, comment = struct.unpack_from("<IIHHH", content, at + 20)
    (begin,) = struct.unpack_from("<I", content, at + 42)
    wide = _extra_64(content[at + 46 + name : at + 46 + name + extra])
    if unpacked == 0xFFFFFFFF:
        unpacked = next(wide)
    if packed == 0xFFFFFFFF:
        packed = next(wide)
    if begin == 0xFFFFFFFF:
        begin = next(wide)
    return method, packed, unpacked, begin, 46 + name + extra + comment


def _extra_64(extra: bytes) -> Iterator[int]:
    """The 64-bit numbers that replace those of 32 bits."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            numbers = extra[at + 4 : at + 4 + size]
            yield from (number for (number,) in struct.iter_unpack("<Q", numbers[: size // 8 * 8]))
        at += 4 + size
