"""Check the pickle in a checkpoint before loading: only plain values and tensors.

`torch.load(weights_only=True)` runs no code, but it builds any value: nested tuples with a billion
items that are then hashed, sparse tensors of any size, subclasses. This module simulates
the few instructions that `torch.save` writes for a checkpoint, with sizes instead of values, and
refuses all others.
"""

import pickletools
from dataclasses import dataclass
from typing import Any

MAX_INSTRUCTIONS = 1_000_000  # ours have 15,000
MAX_VALUES = 1_000_000  # a shared value counts each time it occurs; our checkpoints have 5,000
MAX_TUPLE_VALUES = 10_000  # Python's random state is a tuple of 625 numbers
MAX_KEY_VALUES = 100  # a key may be a tuple
MAX_OTHER_KEYS = 5_000  # an optimizer has one for each parameter
MAX_INTEGER_BITS = 64
MAX_ARGUMENTS = 10  # of a function; a tensor has 6 or 7
MAX_CONVERTED = 1_000_000  # values and characters that functions copy

_ORDERED_DICT = "collections OrderedDict"
_FUNCTIONS = {f"torch._utils _rebuild_{kind}" for kind in ("tensor_v2", "tensor_v3", "parameter")}
_COUNTER, _ENCODE = "collections Counter", "_codecs encode"  # of MultiStepLR, and for bytes
_FUNCTIONS |= {_ORDERED_DICT, _COUNTER, _ENCODE}
# The only arguments of these functions. Another codec would be imported, or take long.
_ARGUMENTS = {_COUNTER: ("a dictionary",), _ENCODE: ("a text", "latin1")}
# The bytes of a number in each storage.
_NUMBER_BYTES = {"Bool": 1, "Byte": 1, "Char": 1, "BFloat16": 2, "Half": 2, "Short": 2, "Float": 4}
_NUMBER_BYTES |= {"Int": 4, "ComplexFloat": 8, "Double": 8, "Long": 8, "ComplexDouble": 16}
_STORAGES = {f"torch {name}Storage": size for name, size in _NUMBER_BYTES.items()}
_STORAGES["torch.storage UntypedStorage"] = 1
_GLOBALS = {*_FUNCTIONS, *_STORAGES, "torch uint16", "torch uint32", "torch uint64"}

# The instructions that push a value without parts.
_VALUES = {"NONE", "NEWFALSE", "NEWTRUE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_VALUES |= {"BINUNICODE", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT"}
# The number of values that an instruction pops from the stack; None: all above the last mark.
_POPPED = {"TUPLE": None, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_POPPED |= {"APPEND": 1, "APPENDS": None, "SETITEM": 2, "SETITEMS": None}


class ForbiddenPickleError(Exception):
    """A pickle contains other values than plain values and tensors, or too many of them."""


@dataclass(slots=True)
class _Value:
    """A simulated value: the number of values in it, its name, its content, and a tuple's items.

    Globals, results of functions, dictionaries and texts have names. Globals, numbers and texts
    have a content.
    """

    size: int = 1
    name: str = ""
    content: Any = None
    items: tuple["_Value", ...] = ()


def check_pickle(content: bytes) -> dict[str, int]:
    """Check that a pickle of `torch.save` builds a limited number of plain values and tensors.

    Returns:
        The bytes that each storage must have, by its key. Not all versions of torch check them.

    Raises:
        ForbiddenPickleError: it builds other values or too many, or is damaged.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if count > MAX_INSTRUCTIONS:
                raise ForbiddenPickleError(f"it has more than {MAX_INSTRUCTIONS:,} instructions")
            machine.execute(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError):
        raise ForbiddenPickleError("its pickle is damaged") from None
    return machine.storages


class _Machine:
    """The unpickler's stack and memo, with sizes instead of values."""

    def __init__(self) -> None:
        self.stack: list[_Value] = []
        self.marks: list[int] = []
        self.memo: dict[int, _Value] = {}
        self.other_keys = 0
        self.converted = 0
        self.storages: dict[str, int] = {}

    def execute(self, name: str, argument: Any) -> None:
        """Simulate one instruction."""
        if name in _VALUES:
            if name == "LONG1" and argument.bit_length() > MAX_INTEGER_BITS:
                raise ForbiddenPickleError("it contains an integer of more than 64 bits")
            kind = {"BINUNICODE": "a text", "EMPTY_DICT": "a dictionary"}.get(name, "")
            self.stack.append(_Value(1, "latin1" if argument == "latin1" else kind, argument))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name in _POPPED:
            values = self._pop(_POPPED[name])
            if name.startswith("TUPLE"):
                size = _total(values, MAX_TUPLE_VALUES, "a tuple")
                self.stack.append(_Value(size, items=tuple(values)))
            else:
                self._add(values, keys=values[::2] if name.startswith("SET") else [])
        elif name == "GLOBAL":
            if argument not in _GLOBALS:
                raise ForbiddenPickleError(f"it contains {argument[:80]!r}")
            self.stack.append(_Value(1, argument, argument))
        elif name == "REDUCE":
            self._call(*self._pop(2))
        elif name == "BUILD":  # the `_metadata` of a network's weights
            self._pop(1)
            if self.stack[-1].name != f"result of {_ORDERED_DICT}":
                raise ForbiddenPickleError("it sets attributes of an object")
        elif name == "BINPERSID":  # the numbers of a tensor
            self._add_storage(*(item.content for item in self._pop(1)[0].items))
            self.stack.append(_Value())
        elif name not in ("PROTO", "STOP"):
            raise ForbiddenPickleError(f"it contains the instruction {name}")

    def _pop(self, count: int | None) -> list[_Value]:
        """Pop `count` values from the stack; None: all above the last mark."""
        start = self.marks.pop() if count is None else len(self.stack) - count
        if start < (self.marks[-1] if self.marks else 0):
            raise ValueError
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _add(self, values: list[_Value], keys: list[_Value]) -> None:
        if any(key.size > MAX_KEY_VALUES for key in keys):
            raise ForbiddenPickleError(f"a key has more than {MAX_KEY_VALUES} values")
        # Hashes of numbers and tuples are predictable: many colliding keys take quadratic time.
        self.other_keys += sum(key.name not in ("a text", "latin1") for key in keys)
        if self.other_keys > MAX_OTHER_KEYS:
            raise ForbiddenPickleError(f"more than {MAX_OTHER_KEYS:,} keys are not strings")
        container = self.stack[-1]
        container.size = _total([container, *values], MAX_VALUES, "it")

    def _add_storage(self, _: Any, kind: str, key: str, device: str, count: int) -> None:
        size = count * _STORAGES[kind]
        if self.storages.setdefault(key, size) != size:
            raise ForbiddenPickleError("it uses one storage with two sizes")

    def _call(self, function: _Value, arguments: _Value) -> None:
        if function.name not in _FUNCTIONS:
            raise ForbiddenPickleError("it calls something other than a function")
        if function.name == _ORDERED_DICT and arguments.size > 1:
            raise ForbiddenPickleError("it creates a dictionary from another value")
        if len(arguments.items) > MAX_ARGUMENTS:
            raise ForbiddenPickleError(f"a function has more than {MAX_ARGUMENTS} arguments")
        names = tuple(item.name for item in arguments.items)
        if names != _ARGUMENTS.get(function.name, names):
            raise ForbiddenPickleError(f"it calls {function.name} with other arguments")
        # Not the size of the tuple: a dictionary in it may have become larger since.
        size = _total(list(arguments.items), MAX_VALUES, "it")
        if function.name in _ARGUMENTS:
            source = arguments.items[0]
            self.converted += max(size, len(source.content or ""))
            if self.converted > MAX_CONVERTED:
                raise ForbiddenPickleError(f"it converts more than {MAX_CONVERTED:,} values")
        self.stack.append(_Value(size, f"result of {function.name}"))


def _total(parts: list[_Value], limit: int, name: str) -> int:
    size = 1 + sum(part.size for part in parts)
    if size > limit:
        raise ForbiddenPickleError(f"{name} contains more than {limit:,} values")
    return size
