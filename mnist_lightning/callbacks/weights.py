"""The bare weights after every epoch, for other programs."""

import io
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from mnist_lightning.classifier import DigitClassifier
from mnist_lightning.files import write_atomically


class WeightsFile(Callback):
    """Writes the network's plain `state_dict` into the run's folder at each epoch's end.

    It is for others and never read back: a run goes on from its checkpoints.

    Args:
        name: the file's name.
    """

    def __init__(self, name: str = "model.pth") -> None:
        self.name = name

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace the file."""
        if trainer.is_global_zero and trainer.log_dir is not None:
            assert isinstance(pl_module, DigitClassifier)
            buffer = io.BytesIO()
            torch.save(pl_module.network.state_dict(), buffer)
            write_atomically(buffer.getvalue(), Path(trainer.log_dir) / self.name)
