"""The content of checkpoint files: made with a digest, and read only when whole.

A file is what `torch.save` writes, followed by a mark and this user's signature where one can be
made, and by another mark and the SHA-256 of all before it; `torch.load` ignores what follows its
archive. Files that end with their archive (a stock Lightning checkpoint) are read too, unchecked.
Nothing here imports lightning.
"""

import hashlib
import io
import random
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mnist_lightning.errors import UserError
from mnist_lightning.files import move_aside, read_bounded
from mnist_lightning.runs import signature
from mnist_lightning.runs.archive import find_excess
from mnist_lightning.runs.former_versions import upgrade_checkpoint
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import say

_SIGNED = b"mnist_lightning hmac "
_SIGNATURE_LENGTH = len(_SIGNED) + signature.SIGNATURE_BYTES
_MARK = b"mnist_lightning sha256 "
_DIGEST_LENGTH = len(_MARK) + hashlib.sha256().digest_size
MAX_CHECKPOINT_BYTES = 2 * 10**9  # the largest network here has 15 MB
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
        DamagedCheckpointError: it was not saved between two steps or epochs: nothing can be
            resumed there.
    """
    loop = checkpoint["loops"]["fit_loop"]
    epochs, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]
    steps = loop["epoch_loop.state_dict"]["_batches_that_stepped"]
    if (
        epochs["completed"] == epochs["processed"]
        and batches["current"]["completed"] == batches["current"]["ready"]
        and steps == checkpoint["global_step"]
    ):
        if epochs["ready"] == epochs["completed"]:
            return Progress(epochs["completed"], 0)
        if not batches["is_last_batch"] and epochs["ready"] == epochs["completed"] + 1:
            return Progress(epochs["completed"], batches["current"]["ready"])
    raise DamagedCheckpointError(
        "this checkpoint was saved within a step, by another callback or an earlier version; "
        "resume from the last.ckpt beside it"
    )


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
    try:
        content = read_bounded(path, MAX_CHECKPOINT_BYTES)
    except UserError as error:
        raise DamagedCheckpointError(str(error)) from None
    except OSError as error:  # a folder, a pipe, a link to nothing, no permission
        reason = (error.strerror or str(error)).lower()
        raise DamagedCheckpointError(f"{path} cannot be read: {reason}") from None
    return parse_checkpoint(content, path)


def parse_checkpoint(content: bytes, path: Path) -> tuple[dict[str, Any], bool]:
    """Read the content of a checkpoint file; see `read_signed_checkpoint`.

    Raises:
        DamagedCheckpointError: see `read_checkpoint`.
    """
    content, signed = _split(content, path)
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
    _check_parts(checkpoint, path)
    upgrade_checkpoint(checkpoint)
    return checkpoint, signature.is_signed(_KIND, content, signed)


def _split(content: bytes, path: Path) -> tuple[bytes, bytes]:
    """Check the digest of a file, and return its archive and its signature (or nothing)."""
    signed = b""
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


def _check_parts(checkpoint: dict[str, Any], path: Path) -> None:
    """Check the types of the parts that every command relies on.

    Raises:
        DamagedCheckpointError: one is of another type.
    """
    for name, kind in (_PARTS | {_LIGHTNING_VERSION: str}).items():
        if name in checkpoint and not isinstance(checkpoint[name], kind):
            raise DamagedCheckpointError(f"{path} is damaged: {name} is no {kind.__name__}")
    for name, weights in checkpoint["state_dict"].items():
        if not isinstance(name, str) or not isinstance(weights, Tensor):
            raise DamagedCheckpointError(f"{path} is damaged: state_dict[{name!r}] is no tensor")
        # One stored number may stand for a billion, until somebody copies the tensor.
        if not _is_stored(weights):
            raise DamagedCheckpointError(f"{path} is damaged: {name!r} is larger than its content")
    checkpoint.setdefault(_LIGHTNING_VERSION, "2.6.0")  # Lightning reads no file without it


def _is_stored(tensor: Tensor) -> bool:
    strided = tensor.layout == torch.strided
    return strided and tensor.numel() * tensor.itemsize <= tensor.untyped_storage().nbytes()


def validate_checkpoint(checkpoint: dict[str, Any]) -> None:
    """Check that a run can be resumed from a checkpoint that was read.

    Raises:
        DamagedCheckpointError: it lacks a part, a part has another form than `fit` gives it, or
            its counters contradict each other.
    """
    _refuse_objects(checkpoint, "the checkpoint")
    for name, kind in _PARTS.items():
        _typed(checkpoint, name, kind)
    if not isinstance(checkpoint["network"].get("class_path"), str):
        raise DamagedCheckpointError("network has no class_path")
    if not network_weights(checkpoint):
        raise DamagedCheckpointError("state_dict has no weights of a network")
    _check_trainer(checkpoint["trainer"])
    _check_counters(checkpoint)
    _check_optimizer(checkpoint)
    _check_callbacks(checkpoint["callbacks"])


# What `fit` resumes from.
_PARTS: dict[str, type] = {
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "global_step": int,
    "epoch": int,
    "config": dict,
    "network": dict,
    "MNISTDataModule": dict,
    "trainer": dict,
}
_LIGHTNING_VERSION = "pytorch-lightning_version"
_PLAIN = (str, int, float, bytes, Tensor, type(None))


def _typed(parent: dict[str, Any], name: str, kind: type) -> Any:
    if name not in parent:
        raise DamagedCheckpointError(f"it has no {name}: `fit` did not make it")
    value = parent[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DamagedCheckpointError(f"{name} is {type(value).__name__}, not {kind.__name__}")
    return value


def _refuse_objects(part: Any, name: str) -> None:
    """Allow primitives, tensors and containers of them."""
    if isinstance(part, dict):
        for key, value in part.items():
            if not isinstance(key, str | int | float | tuple):
                raise DamagedCheckpointError(f"{name} has a key of type {type(key).__name__}")
            _refuse_objects(value, f"{name}[{key!r}]")
    elif isinstance(part, list | tuple):
        for index, value in enumerate(part):
            _refuse_objects(value, f"{name}[{index}]")
    elif not isinstance(part, _PLAIN):
        raise DamagedCheckpointError(f"{name} is {type(part).__name__}, neither number nor tensor")


def _check_counters(checkpoint: dict[str, Any]) -> None:
    try:
        loop = checkpoint["loops"]["fit_loop"]
        for part, counters in loop.items():
            if part != "state_dict":
                _refuse_negative(counters, f"loops.{part}")
        done = progress(checkpoint)
        optimizer = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
        steps = optimizer["step"]["total"]["completed"]
        (place,) = loop["state_dict"]["combined_loader"]
        place = {"epoch": place["epoch"], "given": place["given"]}
        _refuse_negative(place, "loader")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DamagedCheckpointError(f"loops: {type(error).__name__} {error}") from None
    if not steps == checkpoint["global_step"] > 0:
        count = checkpoint["global_step"]
        raise DamagedCheckpointError(f"global_step is {count}, the loops count {steps} steps")
    if checkpoint["epoch"] != done.epochs:
        count = checkpoint["epoch"]
        raise DamagedCheckpointError(f"epoch is {count}, the loops count {done.epochs}")
    if done.batches and place != {"epoch": done.epochs, "given": done.batches}:
        raise DamagedCheckpointError(f"the loader is at {place}, the loops are at {done}")


def _check_trainer(trainer: dict[str, Any]) -> None:
    if _typed(trainer, "accumulate_grad_batches", int) < 1:
        raise DamagedCheckpointError("trainer.accumulate_grad_batches is below 1")
    if trainer.get("logged_steps", ...) is not None:
        _refuse_negative(_typed(trainer, "logged_steps", dict), "trainer.logged_steps")
    for state in _typed(trainer, "model_checkpoints", dict).values():
        if not isinstance(state, dict):
            raise DamagedCheckpointError("trainer.model_checkpoints holds no state of a callback")
    for name, value in _typed(trainer, "callback_metrics", dict).items():
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise DamagedCheckpointError(f"trainer.callback_metrics[{name!r}] is no number")


def _refuse_negative(counters: Any, name: str) -> None:
    if isinstance(counters, dict):
        for key, value in counters.items():
            _refuse_negative(value, f"{name}.{key}")
    elif not isinstance(counters, int) or counters < 0:
        raise DamagedCheckpointError(f"{name} is {str(counters)[:80]}, which counts nothing")


def _check_optimizer(checkpoint: dict[str, Any]) -> None:
    if len(checkpoint["optimizer_states"]) != 1 or len(checkpoint["lr_schedulers"]) > 1:
        raise DamagedCheckpointError("a run has one optimizer and at most one schedule")
    try:
        (state,) = checkpoint["optimizer_states"]
        numbers = [number for group in state["param_groups"] for number in group["params"]]
        of_parameters = state["state"]
        rates = [group["lr"] for group in state["param_groups"]]
        if not all(isinstance(rate, float | int | Tensor) for rate in rates):
            raise DamagedCheckpointError("optimizer_states: the learning rate is no number")
        if not all(isinstance(each, dict) for each in of_parameters.values()):
            raise DamagedCheckpointError("optimizer_states: the state of a parameter is no dict")
        unknown = of_parameters.keys() - set(numbers)
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpointError(f"optimizer_states: {type(error).__name__} {error}") from None
    if numbers != list(range(len(numbers))) or unknown or not numbers:
        raise DamagedCheckpointError("optimizer_states: the parameters are not numbered")
    if len(numbers) > len(network_weights(checkpoint)):
        raise DamagedCheckpointError(
            f"optimizer_states has {len(numbers)} parameters, the network fewer"
        )
    if not all(isinstance(each, dict) for each in checkpoint["lr_schedulers"]):
        raise DamagedCheckpointError("lr_schedulers: the state of a schedule is no dict")


def _check_callbacks(callbacks: dict[str, Any]) -> None:
    state = callbacks.get("RunCheckpoints")
    if not isinstance(state, dict) or not isinstance(state.get("validated_step"), int):
        raise DamagedCheckpointError("callbacks.RunCheckpoints is no state of that callback")
    for name in ("best", "validated"):
        score = state.get(name)
        if not isinstance(score, dict) or not all(isinstance(n, float) for n in score.values()):
            raise DamagedCheckpointError(f"callbacks.RunCheckpoints.{name} is no score")
    try:  # in generators of their own
        states = callbacks["RandomState"]
        random.Random().setstate(states["python"])
        name, keys, *rest = states["numpy"]
        np.random.RandomState().set_state((name, keys.numpy(), *rest))
        torch.Generator().set_state(states["torch"])
        list(states["cuda"]), list(states.get("others", ()))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise DamagedCheckpointError(f"callbacks.RandomState: {reason}") from None


def recent_checkpoints(run: Run) -> list[Path]:
    """The `last*.ckpt` of a run, the newest first; also those that cannot be read."""
    names = re.compile(r"last(-\d+)?\.ckpt")
    found = [path for path in _entries(run.checkpoints) if names.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem.partition("-")[2] or 0))


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def newest_checkpoint(run: Run, move: bool = False) -> Path:
    """Find the newest `last*.ckpt` of a run that can be resumed; report the damaged ones.

    Args:
        run: the run; locked by the caller if
        move: damaged files are moved aside.

    Raises:
        UserError: there is none.
    """
    found = recent_checkpoints(run)
    for path in found:
        try:
            validate_checkpoint(read_checkpoint(path))
        except DamagedCheckpointError as error:
            text = str(error) if str(path) in str(error) else f"{path} is damaged: {error}"
            text += "; going back to the one before" if path != found[-1] else ""
            say(text + (f"; kept as {move_aside(path).name}" if move else ""))
        else:
            return path
    if not run.config.is_file() and any(run.checkpoints.glob("*.ckpt")):
        raise UserError(f"{run.folder} was not made by `fit`, which alone can be resumed")
    raise run.no_checkpoint_error("whole checkpoint")
