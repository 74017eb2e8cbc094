"""The content of checkpoint files: made with a digest, and read only when whole.

A file is what `torch.save` writes, followed by a mark and this user's signature where one can be
made, and by another mark and the SHA-256 of all before it; `torch.load` ignores what follows its
archive. Files that end with their archive (a stock Lightning checkpoint) are read too, unchecked.
Nothing here imports lightning.
"""

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mnist_lightning.errors import UserError
from mnist_lightning.runs import signature
from mnist_lightning.runs.archive import find_excess
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import say

_SIGNED = b"mnist_lightning hmac "
_SIGNATURE_LENGTH = len(_SIGNED) + signature.SIGNATURE_BYTES
_MARK = b"mnist_lightning sha256 "
_DIGEST_LENGTH = len(_MARK) + hashlib.sha256().digest_size
_KIND = "checkpoint"  # of a signature
# How a zip archive without a comment ends: this mark, and 18 more bytes.
_ZIP, _ZIP_END, _ZIP_END_LENGTH = b"PK", b"PK\x05\x06", 22


class DamagedCheckpointError(UserError):
    """A checkpoint is truncated, altered or no checkpoint at all."""


class Progress(NamedTuple):
    """How far a run was when a checkpoint was made.

    Attributes:
        epochs: whole epochs behind it.
        batches: and so many batches of the next one.
    """

    epochs: int
    batches: int

    def __str__(self) -> str:
        if self.batches:
            return f"batch {self.batches} of epoch {self.epochs + 1}"
        return f"epoch {self.epochs}"


def progress(checkpoint: dict[str, Any]) -> Progress:
    """Read how far the run was.

    Raises:
        UserError: it was made at the end of an epoch that a limit cut short; nothing goes on there.
    """
    loop = checkpoint["loops"]["fit_loop"]
    epochs, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]
    if epochs["processed"] < epochs["started"]:
        return Progress(epochs["processed"], batches["current"]["ready"])
    if not batches["is_last_batch"]:
        raise UserError(
            "this checkpoint was made where a limit cut an epoch short; go on from the last.ckpt "
            "beside it"
        )
    return Progress(epochs["processed"], 0)


def network_weights(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The weights of a classifier's network, by their names in the network."""
    prefix = "network."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }


def dump_checkpoint(checkpoint: dict[str, Any]) -> bytes:
    """Serialize a checkpoint of primitives and tensors; append its digest and a signature."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    content = buffer.getvalue()
    signed = signature.sign(_KIND, content)
    if signed is not None:
        content += _SIGNED + signed
    return content + _MARK + hashlib.sha256(content).digest()


def check_archive(content: bytes) -> None:
    """Check that loading a checkpoint takes no more memory than its file.

    Raises:
        DamagedCheckpointError: it would expand, or is no archive of `torch.save`.
    """
    if (reason := find_excess(content)) is not None:
        raise DamagedCheckpointError(reason)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU; no code from the file is ever run.

    Raises:
        DamagedCheckpointError: it is truncated or altered, or holds more than primitives and
            tensors.
    """
    return read_signed_checkpoint(path)[0]


def read_signed_checkpoint(path: Path) -> tuple[dict[str, Any], bool]:
    """Read a checkpoint as `read_checkpoint` does, and tell whether this user made it here.

    Raises:
        DamagedCheckpointError: see `read_checkpoint`.
    """
    content, signed = _split(path)
    try:
        check_archive(content)
        with warnings.catch_warnings(action="ignore"):
            checkpoint = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:  # what a foreign file makes an unpickler raise is anybody's guess
        reason = str(error).strip().split(". ")[0].splitlines() or [type(error).__name__]
        raise DamagedCheckpointError(
            f"{path} is damaged, or no checkpoint at all: {reason[0]}"
        ) from None
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise DamagedCheckpointError(f"{path} is no checkpoint of a classifier")
    return checkpoint, signature.is_signed(_KIND, content, signed)


def _split(path: Path) -> tuple[bytes, bytes]:
    """Read a file, check its digest, and return its archive and its signature (or nothing)."""
    content, signed = path.read_bytes(), b""
    if content[-_DIGEST_LENGTH:].startswith(_MARK):
        digest = content[-_DIGEST_LENGTH + len(_MARK) :]
        content = content[:-_DIGEST_LENGTH]
        if hashlib.sha256(content).digest() != digest:
            raise DamagedCheckpointError(f"{path} is damaged: it does not match its digest")
    if content[-_SIGNATURE_LENGTH:].startswith(_SIGNED):
        signed = content[-_SIGNATURE_LENGTH + len(_SIGNED) :]
        content = content[:-_SIGNATURE_LENGTH]
    if content.startswith(_ZIP) and not content[-_ZIP_END_LENGTH:].startswith(_ZIP_END):
        raise DamagedCheckpointError(
            f"{path} is damaged, or no checkpoint at all: its end is missing"
        )
    return content, signed


def newest_checkpoint(run: Run) -> Path:
    """Find the newest intact `last*.ckpt` of a run; report the damaged ones.

    Raises:
        UserError: there is none.
    """
    found = sorted(run.checkpoints.glob("last*.ckpt"), key=lambda path: path.name[4:])
    found.sort(key=lambda path: path != run.recent())
    for path in found:
        try:
            read_checkpoint(path)
        except DamagedCheckpointError as error:
            more = "; going back to the one before" if path != found[-1] else ""
            say(f"{error}{more}")
        else:
            return path
    if not run.config.is_file() and any(run.checkpoints.glob("*.ckpt")):
        raise UserError(f"{run.folder} was not made by `fit`, which alone can be resumed")
    raise run.no_checkpoint_error("whole checkpoint")
