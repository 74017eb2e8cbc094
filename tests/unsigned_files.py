"""Files of another user: with a correct digest, but without a signature of this user."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mnist_lightning.runs.run_directory import Run


def unsigned_checkpoint(checkpoint: dict[str, Any]) -> bytes:
    """Return the bytes of a checkpoint file with a correct digest and without a signature."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    content = buffer.getvalue()
    return content + digest_line(content)


@contextmanager
def edit_checkpoint(path: Path) -> Iterator[Any]:
    """Yield the content of a checkpoint for changes; write it without a signature."""
    checkpoint = torch.load(path, weights_only=True)
    yield checkpoint
    path.write_bytes(unsigned_checkpoint(checkpoint))


def digest_line(content: bytes) -> bytes:
    """Return the last bytes of a checkpoint file, which need no key."""
    return b"mnist_lightning sha256 " + hashlib.sha256(content).digest()


def remove_signatures(run: Run) -> None:
    """Remove the signatures of a run, as if it was made on another machine."""
    for path in run.checkpoints.glob("*.ckpt"):
        content = path.read_bytes()
        content = content[: content.rindex(b"mnist_lightning hmac ")]
        path.write_bytes(content + digest_line(content))
    remove_config_signature(run.config)


def remove_config_signature(config: Path) -> None:
    """Remove the signature from a `config.yaml`."""
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith("# signature")))
