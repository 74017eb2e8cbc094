"""Check a loaded checkpoint: primitives, containers of them, and stored tensors."""

from collections import Counter, OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from mnist_lightning.runs.config import MAX_CHARS

MAX_VALUES = 100_000  # a checkpoint has 5,000
MAX_DEPTH = 60
MAX_EXPANSION = 4  # size of all tensors with shared storages, relative to the file size


class NotPlainError(Exception):
    """A value is neither a primitive nor a stored tensor, or there are too many of them."""


def check_plain(value: Any, name: str, file_size: int) -> None:
    """Check a value and all its parts.

    Args:
        value: from a file.
        name: its name in messages.
        file_size: in bytes; limits the total size of the tensors.

    Raises:
        NotPlainError: a part is another object or larger than its storage, or there are too many.
    """
    _PlainCheck(MAX_EXPANSION * file_size).visit(value, name, 0)


class _PlainCheck:
    """Walks through a value; stores what remains of the limits."""

    def __init__(self, tensor_bytes: int) -> None:
        self.values = MAX_VALUES
        self.tensor_bytes = tensor_bytes

    def visit(self, value: Any, name: str, depth: int) -> None:
        self.values -= 1
        if self.values < 0 or depth > MAX_DEPTH:
            raise NotPlainError(f"it has more than {MAX_VALUES:,} values, or is nested too deeply")
        if type(value) in (dict, OrderedDict, Counter):
            for key, item in value.items():
                if not isinstance(key, str | int | float | tuple):
                    raise NotPlainError(f"{name} has a key of type {type(key).__name__}")
                self._check_length(key, name)
                self.visit(item, f"{name}[{_label(key)}]", depth + 1)
            attributes = getattr(value, "__dict__", {})
            if attributes.keys() - {"_metadata"} or not _are_versions(attributes):
                raise NotPlainError(f"{name} has attributes")
            versions = attributes.get("_metadata", {}).values()
            self.values -= sum(1 + len(each) for each in versions)
        elif type(value) in (list, tuple):
            for index, item in enumerate(value):
                self.visit(item, f"{name}[{index}]", depth + 1)
        elif type(value) in (Tensor, nn.Parameter):
            self._visit_tensor(value, name)
        elif not isinstance(value, str | int | float | bytes | None):
            raise NotPlainError(f"{name} is of type {type(value).__name__}, which is not allowed")
        else:
            self._check_length(value, name)

    @staticmethod
    def _check_length(value: Any, name: str) -> None:
        if isinstance(value, str) and len(value) > MAX_CHARS:
            raise NotPlainError(f"{name} has a text of more than {MAX_CHARS:,} characters")

    def _visit_tensor(self, tensor: Tensor, name: str) -> None:
        # A tensor may repeat one stored number a billion times; a copy would expand it.
        size = tensor.numel() * tensor.itemsize
        self.tensor_bytes -= tensor.numel() * max(tensor.itemsize, 4)  # it is copied as float32
        is_strided = tensor.layout == torch.strided
        stored = is_strided and _is_dense(tensor) and size <= tensor.untyped_storage().nbytes()
        if not stored or self.tensor_bytes < 0:
            raise NotPlainError(f"{name} is larger than its content")


def check_description(value: Any, name: str) -> None:
    """Check a value that describes something: it contains no tensors and no bytes.

    Raises:
        NotPlainError: it does.
    """
    if isinstance(value, list | tuple):
        for item in value:
            check_description(item, name)
    elif isinstance(value, dict):
        check_description([*value.keys(), *value.values()], name)
    elif not isinstance(value, str | int | float | None):
        raise NotPlainError(f"{name} contains a value of type {type(value).__name__}")


def _is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor has no gaps or overlaps, in any order of its dimensions.

    Some of torch's kernels assume this, and write beyond the end of other tensors.
    """
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True


def _are_versions(attributes: dict[str, Any]) -> bool:
    """Return whether attributes are torch's metadata of weights: versions of modules by name."""
    modules = attributes.get("_metadata", {})
    return isinstance(modules, dict) and all(
        isinstance(name, str)
        and isinstance(data, dict)
        and all(isinstance(key, str) and isinstance(value, int) for key, value in data.items())
        for name, data in modules.items()
    )


def _label(key: Any) -> str:
    """Return a short text for a key: a key of a million characters may occur a million times."""
    if isinstance(key, str):
        return repr(key[:40])
    return "a tuple" if isinstance(key, tuple) else repr(key)
