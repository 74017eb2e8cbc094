"""Check before loading that the archive of a checkpoint does not expand.

`torch.save` stores every entry uncompressed, so that the content of a checkpoint is not larger than
its file. This module parses the archive's directory in the same way as miniz, torch's reader:
Python's `zipfile` could find a different directory in a crafted file.
"""

import struct
from collections.abc import Iterator

MAX_ENTRIES = 100_000  # one for each tensor, and about six others

_END, _END_64, _LOCATOR_64, _ENTRY = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x01\x02"


def find_archive_problem(content: bytes) -> str | None:
    """Return why an archive is not from `torch.save`, or would expand; None if it is valid."""
    if not content.startswith(b"PK\x03\x04"):
        return "it is not a zip archive of torch.save"
    try:
        count, offset = _read_directory(content)
        if count > MAX_ENTRIES:
            return f"it has {count:,} entries; the limit is {MAX_ENTRIES:,}"
        spans = []
        for _ in range(count):
            method, compressed, size, start, length = _read_entry(content, offset)
            if method != 0 or compressed != size:
                return "its entries are compressed; torch.save stores them uncompressed"
            spans.append((start, start + 30 + size))
            offset += length
    except (struct.error, ValueError, StopIteration):
        return "its directory is damaged"
    spans.sort()
    ends = [0, *(end for _, end in spans)]
    if any(start < end for (start, _), end in zip(spans, ends, strict=False)):
        return "its entries overlap"
    if ends[-1] > len(content):
        return "its entries are larger than the file"
    return None


def _read_directory(content: bytes) -> tuple[int, int]:
    """Return the number of entries and the offset of the directory."""
    end = content.rfind(_END, max(0, len(content) - 65_557))
    if end < 0:
        raise ValueError
    count, _, start = struct.unpack_from("<HII", content, end + 10)
    locator = end - 20
    if locator >= 0 and content.startswith(_LOCATOR_64, locator):
        (offset,) = struct.unpack_from("<Q", content, locator + 8)
        if not content.startswith(_END_64, offset):
            raise ValueError
        count, _, start = struct.unpack_from("<QQQ", content, offset + 32)
    return count, start


def _read_entry(content: bytes, offset: int) -> tuple[int, int, int, int, int]:
    """Return the method, compressed size, size, offset and record length of an entry."""
    if not content.startswith(_ENTRY, offset):
        raise ValueError
    (method,) = struct.unpack_from("<H", content, offset + 10)
    compressed, size, name, extra, comment = struct.unpack_from("<IIHHH", content, offset + 20)
    (start,) = struct.unpack_from("<I", content, offset + 42)
    wide = _read_extra_64(content[offset + 46 + name : offset + 46 + name + extra])
    numbers = (size, compressed, start)
    size, compressed, start = [next(wide) if n == 0xFFFFFFFF else n for n in numbers]
    return method, compressed, size, start, 46 + name + extra + comment


def _read_extra_64(extra: bytes) -> Iterator[int]:
    """Yield the 64-bit numbers that replace the 32-bit numbers."""
    offset = 0
    while offset + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, offset)
        if kind == 1:
            numbers = extra[offset + 4 : offset + 4 + size]
            yield from (number for (number,) in struct.iter_unpack("<Q", numbers[: size // 8 * 8]))
        offset += 4 + size
