"""Pickles that need much more time or memory than their size, or create objects."""

import io
import pickle
import zipfile
from collections.abc import Iterator

import torch

P = pickle


def checkpoint_with_pickle(data: bytes) -> bytes:
    """Return a checkpoint file with this pickle."""
    buffer = io.BytesIO()
    torch.save({"state_dict": {"a": torch.zeros(4)}}, buffer)
    return replace_pickle(buffer, data)


def replace_pickle(buffer: io.BytesIO, data: bytes) -> bytes:
    """Return a copy of an archive of `torch.save` with another pickle."""
    target_buffer = io.BytesIO()
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(target_buffer, "w") as target:
        for name in source.namelist():
            target.writestr(name, data if name.endswith("data.pkl") else source.read(name))
    return target_buffer.getvalue()


def pickle_text(value: str) -> bytes:
    encoded = value.encode()
    return P.BINUNICODE + len(encoded).to_bytes(4, "little") + encoded


def store(number: int) -> bytes:
    return P.BINPUT + bytes([number])


def fetch(number: int) -> bytes:
    return P.BINGET + bytes([number])


def with_state_dict(after: bytes) -> bytes:
    """Return the pickle of a dictionary with a state_dict, and the items of `after`."""
    begin = P.PROTO + b"\x02" + P.EMPTY_DICT
    return begin + pickle_text("state_dict") + P.EMPTY_DICT + P.SETITEM + after + P.STOP


def nested_pairs(levels: int, empty: bytes, twice: bytes) -> bytes:
    """Return nested values, each of which contains the previous one twice."""
    return empty + store(0) + b"".join(twice + store(n) for n in range(1, levels + 1))


TUPLES = nested_pairs(60, P.EMPTY_TUPLE, b"".join([P.TUPLE1, store(100), fetch(100), P.TUPLE2]))
LISTS = (
    P.EMPTY_LIST
    + store(0)
    + b"".join(P.EMPTY_LIST + P.MARK + fetch(n) * 2 + P.APPENDS + store(n + 1) for n in range(60))
)


def pickle_call(name: bytes, arguments: bytes) -> bytes:
    return P.GLOBAL + name + b"\n" + arguments + P.REDUCE


def malicious_pickles() -> Iterator[tuple[str, bytes]]:
    yield "a tuple as a key", with_state_dict(TUPLES + P.NONE + P.SETITEM)
    yield "a tuple", with_state_dict(pickle_text("epoch") + TUPLES + P.SETITEM)
    yield "a long key", with_state_dict(P.MARK + P.NONE * 101 + P.TUPLE + P.NONE + P.SETITEM)
    yield "lists", with_state_dict(pickle_text("epoch") + LISTS + P.SETITEM)
    yield (
        "a set",
        with_state_dict(
            pickle_text("epoch")
            + pickle_call(b"builtins\nset", P.EMPTY_LIST + P.TUPLE1)
            + P.SETITEM
        ),
    )
    yield (
        "a large number",
        with_state_dict(pickle_text("epoch") + P.LONG1 + b"\xff" + b"\x01" * 255 + P.SETITEM),
    )
    pairs = P.EMPTY_LIST + P.TUPLE1
    yield (
        "a filled dictionary",
        with_state_dict(
            pickle_text("epoch") + pickle_call(b"collections\nOrderedDict", pairs) + P.SETITEM
        ),
    )
    yield (
        "attributes of a list",
        with_state_dict(pickle_text("epoch") + P.EMPTY_LIST + P.EMPTY_DICT + P.BUILD + P.SETITEM),
    )
    yield "too few values", with_state_dict(P.SETITEM)
    yield "no mark", with_state_dict(P.APPENDS)
    yield (
        "a function of Python",
        with_state_dict(
            pickle_text("epoch")
            + pickle_call(b"os\nsystem", pickle_text("true") + P.TUPLE1)
            + P.SETITEM
        ),
    )
    encode = b"_codecs\nencode"
    for codec in ("mac_arabic", "punycode", "hex_codec"):  # each is imported
        arguments = pickle_text("abc") + pickle_text(codec) + P.TUPLE2
        yield (
            f"the codec {codec}",
            with_state_dict(pickle_text("epoch") + pickle_call(encode, arguments) + P.SETITEM),
        )
    nested = (
        pickle_call(encode, pickle_text("abc") + pickle_text("latin1") + P.TUPLE2)
        + pickle_text("latin1")
        + P.TUPLE2
    )
    yield (
        "an encoded text, encoded",
        with_state_dict(pickle_text("epoch") + pickle_call(encode, nested) + P.SETITEM),
    )
    counted = pickle_call(b"collections\nCounter", pickle_text("abc") + P.TUPLE1)
    yield "the counts of a text", with_state_dict(pickle_text("epoch") + counted + P.SETITEM)
    yield from repeated_calls()
    yield "nothing at all", b""


def repeated_calls() -> Iterator[tuple[str, bytes]]:
    """Yield calls of one function with one large argument."""
    calls = fetch(0) + fetch(1) + P.REDUCE
    function = P.GLOBAL + b"torch._utils\n_rebuild_parameter\n" + store(0)
    arguments = P.MARK + P.NONE * 9_000 + P.TUPLE + store(1)
    yield "many long calls", with_state_dict(function + arguments + calls * 100_000)
    counter = P.GLOBAL + b"collections\nCounter\n" + store(0)
    pairs = b"".join(pickle_text(f"{n:06}") + P.NONE for n in range(5_000))
    # The dictionary is filled after it was put into the tuple.
    filled = P.EMPTY_DICT + store(2) + P.TUPLE1 + store(1) + fetch(2) + P.MARK + pairs + P.SETITEMS
    yield "many copies of a dictionary", with_state_dict(counter + filled + calls * 500)
    encode = P.GLOBAL + b"_codecs\nencode\n" + store(0)
    text = pickle_text("a" * 600_000) + pickle_text("latin1") + P.TUPLE2 + store(1)
    yield "many copies of a text", with_state_dict(encode + text + calls * 100)
