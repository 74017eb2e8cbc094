"""Save and load checkpoints atomically, with a digest and a signature."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO

from mnist_lightning.errors import UserError
from mnist_lightning.files import write_atomically
from mnist_lightning.runs.checkpoint import dump_checkpoint, parse_checkpoint, read_checkpoint


@dataclass(eq=False)
class AtomicCheckpointIO(CheckpointIO):
    """Saves by renaming a complete file into place, and loads only intact files.

    Args:
        folder: the only folder to save to and to delete from, whatever paths the callback states
            of a checkpoint contain; None: any folder.
        sign: whether to sign checkpoints as the user's own.
        loaded: checkpoints that were read and checked; they are not read again, because the file
            may have changed since then.
    """

    folder: Path | None = None
    sign: bool = True
    loaded: Mapping[Path, dict[str, Any]] = field(default_factory=dict)

    def _check_inside(self, path: Path) -> None:
        folder = self.folder
        if folder is not None and not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"Checkpoint path outside of the run directory {folder}: {path}.")

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, *_: Any, **__: Any) -> None:
        """Write `checkpoint` with its digest, after checking that it can be read back.

        Raises:
            DamagedCheckpointError: it could not be read back. For example, the state of a callback
                contains other objects than primitives and tensors.
        """
        self._check_inside(Path(path))
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        content = dump_checkpoint(checkpoint, self.sign)
        parse_checkpoint(content, Path(path))
        write_atomically(content, Path(path))

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint on the CPU; Lightning moves its parts to their devices."""
        loaded = self.loaded.get(Path(path))
        return read_checkpoint(Path(path)) if loaded is None else copy.copy(loaded)

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        self._check_inside(Path(path))
        Path(path).unlink(missing_ok=True)
