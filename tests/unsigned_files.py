"""Files as a stranger can make them: whole, but not signed with this user's key."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from mnist_lightning.runs.run_directory import Run


def unsigned_checkpoint(checkpoint: dict[str, Any]) -> bytes:
    """Return the bytes of a checkpoint file with a correct digest and without a signature."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    content = buffer.getvalue()
    return content + digest(content)


def digest(content: bytes) -> bytes:
    """Return the end of a checkpoint file that anybody can compute."""
    return b"mnist_lightning sha256 " + hashlib.sha256(content).digest()


def remove_signatures(run: Run) -> None:
    """Take the signatures off all files of a run, as if it had been made on another machine."""
    for path in run.checkpoints.glob("*.ckpt"):
        content = path.read_bytes()
        content = content[: content.rindex(b"mnist_lightning hmac ")]
        path.write_bytes(content + digest(content))
    strip(run.config)


def strip(config: Path) -> None:
    """Take the signature off a `config.yaml`."""
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith("# signature")))
