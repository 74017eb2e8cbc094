"""Check the pickle in a checkpoint before loading: only plain values and tensors.

`torch.load(weights_only=True)` runs no code, but it builds whatever the file says: tuples that hold
each other a billion times over and are then hashed, sparse tensors of any size, subclasses. This
follows the few instructions that `torch.save` writes for a checkpoint, with sizes in place of
values, and refuses all others.
"""

import pickletools
from typing import Any

MAX_VALUES = (
    1_000_000  # a shared value counts as often as it occurs; a checkpoint of ours has 5,000
)
MAX_TUPLE = 10_000  # Python's random state is a tuple of 625 numbers
MAX_KEY = 100
MAX_OTHER_KEYS = 5_000  # an optimizer has one for each of its parameters
MAX_INTEGER_BITS = 64

_REBUILD = {f"torch._utils _rebuild_{kind}" for kind in ("tensor_v2", "tensor_v3", "parameter")}
_ORDERED_DICT = "collections OrderedDict"
_COUNTER = "collections Counter"  # the milestones of MultiStepLR
_BYTES = "_codecs encode"
_STORAGES = {
    f"torch {name}Storage"
    for name in [
        "BFloat16",
        "Bool",
        "Byte",
        "Char",
        "ComplexDouble",
        "ComplexFloat",
        "Double",
        "Float",
        "Half",
        "Int",
        "Long",
        "Short",
    ]
}
_WITHOUT_STORAGE = {"torch uint16", "torch uint32", "torch uint64", "torch.storage UntypedStorage"}
_FUNCTIONS = _REBUILD | {_ORDERED_DICT, _COUNTER, _BYTES}
_GLOBALS = _FUNCTIONS | _STORAGES | _WITHOUT_STORAGE

_VALUES = {
    "NONE",
    "NEWFALSE",
    "NEWTRUE",
    "BININT",
    "BININT1",
    "BININT2",
    "BINFLOAT",
    "BINUNICODE",
    "LONG1",
    "EMPTY_TUPLE",
    "EMPTY_LIST",
    "EMPTY_DICT",
}
# How many values an instruction takes from the stack; None: all above the last mark.
_TAKEN = {"TUPLE": None, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_TAKEN |= {"APPEND": 1, "APPENDS": None, "SETITEM": 2, "SETITEMS": None}
_MADE = "made by "


class ForbiddenPickleError(Exception):
    """A pickle holds something else than plain values and tensors, or too much of them."""


class _Value:
    """What is known of a value: how many values it holds, a global's name, whether it is text."""

    __slots__ = ("name", "size", "text")

    def __init__(self, size: int = 1, name: str = "", text: bool = False) -> None:
        self.size = size
        self.name = name
        self.text = text


def check_pickle(content: bytes) -> None:
    """Check that a pickle of `torch.save` builds plain values and tensors, and not too many.

    Raises:
        ForbiddenPickleError: it does not.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(content):
            machine.follow(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError):
        raise ForbiddenPickleError("its pickle is damaged") from None


class _Machine:
    """The unpickler's stack and memo, with sizes in place of values."""

    def __init__(self) -> None:
        self.stack: list[_Value] = []
        self.marks: list[int] = []
        self.memo: dict[int, _Value] = {}
        self.other_keys = 0

    def follow(self, name: str, argument: Any) -> None:
        """Follow one instruction."""
        if name in _VALUES:
            if name == "LONG1" and argument.bit_length() > MAX_INTEGER_BITS:
                raise ForbiddenPickleError("it has an integer of more than 64 bits")
            self.stack.append(_Value(text=name == "BINUNICODE"))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name in _TAKEN:
            taken = self._take(_TAKEN[name])
            if name.startswith("TUPLE"):
                self.stack.append(_Value(_total(taken, MAX_TUPLE, "a tuple")))
            else:
                self._fill(taken[::2] if name.startswith("SET") else [], taken)
        elif name == "GLOBAL":
            if argument not in _GLOBALS:
                raise ForbiddenPickleError(f"it holds {argument[:80]!r}")
            self.stack.append(_Value(name=argument))
        elif name == "REDUCE":
            self._call(*self._take(2))
        elif name == "BUILD":  # the `_metadata` of a network's weights
            self._take(1)
            if self.stack[-1].name != _MADE + _ORDERED_DICT:
                raise ForbiddenPickleError("it sets the attributes of a value")
        elif name == "BINPERSID":  # the numbers of a tensor
            self._take(1)
            self.stack.append(_Value())
        elif name not in ("PROTO", "STOP"):
            raise ForbiddenPickleError(f"it has the instruction {name}")

    def _take(self, count: int | None) -> list[_Value]:
        """Take so many values from the stack; None: all above the last mark."""
        begin = self.marks.pop() if count is None else len(self.stack) - count
        if begin < (self.marks[-1] if self.marks else 0):
            raise ValueError
        taken = self.stack[begin:]
        del self.stack[begin:]
        return taken

    def _fill(self, keys: list[_Value], values: list[_Value]) -> None:
        if any(key.size > MAX_KEY for key in keys):
            raise ForbiddenPickleError(f"a key has more than {MAX_KEY} values")
        # Numbers and tuples have known hashes: many that are alike take quadratic time.
        self.other_keys += sum(not key.text for key in keys)
        if self.other_keys > MAX_OTHER_KEYS:
            raise ForbiddenPickleError(f"more than {MAX_OTHER_KEYS:,} keys are not strings")
        container = self.stack[-1]
        container.size = _total([container, *values], MAX_VALUES, "it")

    def _call(self, function: _Value, arguments: _Value) -> None:
        if function.name not in _FUNCTIONS:
            raise ForbiddenPickleError("it calls what is no function")
        if function.name == _ORDERED_DICT and arguments.size > 1:
            raise ForbiddenPickleError("it makes a dictionary of something else")
        self.stack.append(_Value(arguments.size, _MADE + function.name))


def _total(parts: list[_Value], limit: int, what: str) -> int:
    size = 1 + sum(part.size for part in parts)
    if size > limit:
        raise ForbiddenPickleError(f"{what} holds more than {limit:,} values")
    return size
