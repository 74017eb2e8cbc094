"""The content of checkpoint files: write them with a digest, read them safely.

A file is an archive of `torch.save`, then a mark and this user's signature (if a key is available),
then another mark and the SHA-256 of everything before it. `torch.load` ignores data after its
archive. Files without these parts (a stock Lightning checkpoint) are read without these checks.
This module does not import lightning.
"""

import hashlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnist_lightning.errors import UserError, unsigned_files
from mnist_lightning.files import read_bounded
from mnist_lightning.runs import signature
from mnist_lightning.runs.archive import find_archive_problem
from mnist_lightning.runs.former_versions import upgrade_checkpoint
from mnist_lightning.runs.pickle_scan import check_pickle
from mnist_lightning.runs.plain_values import NotPlainError, check_description, check_plain
from mnist_lightning.runs.safetensors_file import read_safetensors

_SIGNATURE_MARK = b"mnist_lightning hmac "
_SIGNATURE_LENGTH = len(_SIGNATURE_MARK) + signature.SIGNATURE_BYTES
_DIGEST_MARK = b"mnist_lightning sha256 "
_DIGEST_LENGTH = len(_DIGEST_MARK) + hashlib.sha256().digest_size
MAX_CHECKPOINT_BYTES = 2 * 10**9
MAX_UNSIGNED_BYTES = 150 * 10**6  # the largest network here has 15 MB
_KIND = "checkpoint"  # of a signature
# A zip archive without a comment ends with this mark and 18 more bytes.
_ZIP, _ZIP_END, _ZIP_END_LENGTH = b"PK", b"PK\x05\x06", 22
# The parts of a checkpoint that `fit` needs to resume, as `check_format` expects them.
PARTS: dict[str, Any] = {
    "state_dict": {str: Tensor},
    "MNISTDataModule": dict,
    **dict.fromkeys(("loops", "callbacks", "config", "network", "trainer"), dict),
    **dict.fromkeys(("optimizer_states", "lr_schedulers"), list),
    **dict.fromkeys(("global_step", "epoch"), int),
}
_LIGHTNING_VERSION = "pytorch-lightning_version"
_CURRENT = re.compile(r"[2-9]\.\d{1,3}\.\d{1,3}[\w.+-]{0,20}", re.ASCII)


class DamagedCheckpointError(UserError):
    """A file is a truncated or altered checkpoint, or not a checkpoint."""


def require(condition: bool, problem: str) -> None:
    """Check a property of a checkpoint.

    Raises:
        DamagedCheckpointError: the condition is false.
    """
    if not condition:
        raise DamagedCheckpointError(problem)


def network_weights(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the weights of a classifier's network, by their names in the network."""
    prefix = "network."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }


def check_format(value: Any, expected: Any, name: str) -> None:
    """Compare a part of a checkpoint with its type.

    Args:
        value: the part.
        expected: a type, `[int]` for a list of such items, `{str: int}` for a dict of such keys and
            values, or `{"lr": int}` for a dict that contains this key.
        name: the part's name in messages.

    Raises:
        DamagedCheckpointError: they differ.
    """
    kind: Any = type(expected) if isinstance(expected, dict | list) else expected
    is_valid = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    require(is_valid, f"{name} is {type(value).__name__}, not {getattr(kind, '__name__', kind)}")
    if isinstance(expected, list):
        for index, item in enumerate(value):
            check_format(item, expected[0], f"{name}[{index}]")
    if isinstance(expected, dict):
        for key, inner in expected.items():
            if isinstance(key, type):
                for each, item in value.items():
                    check_format(each, key, f"a key of {name}")
                    check_format(item, inner, f"{name}[{repr(each)[:80]}]")
            else:
                require(key in value, f"{name} has no {key}: `fit` did not write it")
                check_format(value[key], inner, f"{name}.{key}")


def dump_checkpoint(checkpoint: dict[str, Any], sign: bool = True) -> bytes:
    """Serialize a checkpoint of primitives and tensors; append its digest and a signature.

    `sign` only configurations from the user's own command: signed classes are imported.
    """
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    content = buffer.getvalue()
    signed = signature.sign(_KIND, content) if sign else None
    if signed is not None:
        content += _SIGNATURE_MARK + signed
    return content + _DIGEST_MARK + hashlib.sha256(content).digest()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU; never run code from the file.

    Raises:
        DamagedCheckpointError: it is truncated or altered, or contains other values than primitives
            and tensors.
    """
    return read_signed_checkpoint(path)[0]


def read_signed_checkpoint(path: Path) -> tuple[dict[str, Any], bool]:
    """Read a checkpoint, and return whether this user wrote it on this machine.

    A `.safetensors` file of `export` has only the weights and the description of the network.

    Raises:
        DamagedCheckpointError: see `read_checkpoint`.
    """
    if path.suffix == ".safetensors":
        weights = read_safetensors(path, MAX_UNSIGNED_BYTES)
        return weights | {_LIGHTNING_VERSION: "2.6.0"}, False
    try:
        content = read_bounded(path, _size_limit(path))
    except UserError as error:
        raise DamagedCheckpointError(str(error)) from None
    except OSError as error:  # a folder, a pipe, a broken link, no permission
        reason = (error.strerror or str(error)).lower()
        raise DamagedCheckpointError(f"{path} cannot be read: {reason}") from None
    return parse_checkpoint(content, path)


def _size_limit(path: Path) -> int:
    """Return the size limit of a file, larger for the user's own; do not load its content."""
    tail = _SIGNATURE_LENGTH + _DIGEST_LENGTH
    left = path.stat().st_size - tail if path.is_file() else 0
    if left + tail <= MAX_UNSIGNED_BYTES:
        return MAX_UNSIGNED_BYTES
    with path.open("rb") as file:
        file.seek(left)
        signed = file.read(_SIGNATURE_LENGTH)
        if not signed.startswith(_SIGNATURE_MARK) or left > MAX_CHECKPOINT_BYTES:
            return MAX_UNSIGNED_BYTES
        file.seek(0)
        digest = hashlib.sha256()
        while part := file.read(min(left - file.tell(), 2**20)):
            digest.update(part)
    own = signature.is_signed_digest(_KIND, digest.digest(), signed.removeprefix(_SIGNATURE_MARK))
    return MAX_CHECKPOINT_BYTES if own else MAX_UNSIGNED_BYTES


def parse_checkpoint(content: bytes, path: Path) -> tuple[dict[str, Any], bool]:
    """Read the content of a checkpoint file; see `read_signed_checkpoint`.

    Raises:
        DamagedCheckpointError: see `read_checkpoint`.
    """
    content, mark = _split_signature(content, path)
    signed = signature.is_signed(_KIND, content, mark)
    if not signed:
        unsigned_files.last = path
    try:
        checkpoint = _load(content)
    except Exception as error:  # an unpickler may raise any error for an untrusted file
        reason = str(error).strip().split(". ")[0].splitlines() or [type(error).__name__]
        problem = f"{path} is damaged or not a checkpoint: {reason[0]}"
        raise DamagedCheckpointError(problem) from None
    upgrade_checkpoint(checkpoint)
    return checkpoint, signed


def _load(content: bytes) -> dict[str, Any]:
    """Load an archive of `torch.save`; its size bounds the time and memory."""
    if (reason := find_archive_problem(content)) is not None:
        raise NotPlainError(reason)
    archive = torch._C.PyTorchFileReader(io.BytesIO(content))
    for key, size in check_pickle(archive.get_record("data.pkl")).items():
        if len(archive.get_record(f"data/{key}")) != size:
            raise NotPlainError(f"its storage {key[:20]} does not have {size:,} bytes")
    with warnings.catch_warnings(action="ignore"):
        checkpoint = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise NotPlainError("it is not a checkpoint of a classifier")
    check_plain(checkpoint, "the checkpoint", len(content))
    for part in ("config", "network", "teacher"):
        check_description(checkpoint.get(part), part)
    parts = PARTS | {_LIGHTNING_VERSION: str}
    present = {name: kind for name, kind in parts.items() if name in checkpoint}
    check_format(checkpoint, present, "checkpoint")
    version = checkpoint.get(_LIGHTNING_VERSION, "2.6.0")
    if not _CURRENT.fullmatch(version):  # Lightning would convert it without checks
        raise NotPlainError(f"it was written by Lightning {version[:20]!r}; 2.0 or later is needed")
    for name, value in checkpoint.get("MNISTDataModule", {}).items():
        values = value.values() if isinstance(value, dict) else [value]
        if not all(isinstance(item, str | int | None) for item in values):
            raise NotPlainError(f"MNISTDataModule[{name!r}] is neither text nor a number")
    checkpoint.setdefault(_LIGHTNING_VERSION, "2.6.0")  # Lightning requires this key
    return checkpoint


def _split_signature(content: bytes, path: Path) -> tuple[bytes, bytes]:
    """Check the digest of a file; return its archive and its signature (empty if unsigned)."""
    signed = b""
    if content[-_DIGEST_LENGTH:].startswith(_DIGEST_MARK):
        digest = content[-_DIGEST_LENGTH + len(_DIGEST_MARK) :]
        content = content[:-_DIGEST_LENGTH]
        if hashlib.sha256(content).digest() != digest:
            raise DamagedCheckpointError(f"{path} is damaged: it does not match its digest")
    if content[-_SIGNATURE_LENGTH:].startswith(_SIGNATURE_MARK):
        signed = content[-_SIGNATURE_LENGTH + len(_SIGNATURE_MARK) :]
        content = content[:-_SIGNATURE_LENGTH]
    if content.startswith(_ZIP) and not content[-_ZIP_END_LENGTH:].startswith(_ZIP_END):
        raise DamagedCheckpointError(f"{path} is damaged or not a checkpoint: its end is missing")
    return content, signed
