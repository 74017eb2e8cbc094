"""Save the weights as a `state_dict` after every epoch, for other programs."""

import io
from pathlib import Path, PurePath

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from mnist_lightning.errors import UserError
from mnist_lightning.files import write_atomically
from mnist_lightning.training.callbacks.ema import ExponentialMovingAverage
from mnist_lightning.training.lightning_module import network_of

MAX_FOLDERS = 10  # a command refuses run directories with more than 50 levels


class WeightsFile(Callback):
    """Writes the network's `state_dict` into the run directory at the end of each epoch.

    The file is for other programs; a run resumes from its checkpoints. With Lightning's Trainer it
    is in the log folder.

    Args:
        name: the file name, relative to the run directory, in at most ten folders.

    Raises:
        ValueError: the path is outside of the run directory, too deep, or has another suffix.
    """

    def __init__(self, name: str = "model.pth") -> None:
        parts = PurePath(name).parts
        outside = ".." in parts or PurePath(name).is_absolute()
        if not name.endswith((".pth", ".pt")) or outside or len(parts) > MAX_FOLDERS + 1:
            raise ValueError(
                f"Invalid name {name!r}: expected a path inside the run directory, with the suffix "
                f".pth or .pt, in at most {MAX_FOLDERS} folders."
            )
        self.name = name

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the file."""
        self._write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the file, if a limit ended the training within an epoch."""
        if not trainer.is_last_batch:
            self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        fast_dev_run = trainer.fast_dev_run  # type: ignore[attr-defined] # set by a connector
        if fast_dev_run or not trainer.is_global_zero:
            return
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        path = folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.parent.resolve().is_relative_to(folder.resolve()):  # by a link
            raise UserError(f"WeightsFile: {path} is outside of the run directory: remove the link")
        buffer = io.BytesIO()
        weights = ExponentialMovingAverage.weights_to_export(trainer, network_of(pl_module))
        on_cpu = {name: weight.cpu() for name, weight in weights.items()}  # loads without a GPU
        torch.save(on_cpu, buffer)
        write_atomically(buffer.getvalue(), path)
