"""Write a snapshot of the network after each epoch, for the page that shows the training."""

import math
import sys
from contextlib import nullcontext

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.evaluation import metrics
from mnist_lightning.networks import inspection
from mnist_lightning.preprocessing.normalization import normalize
from mnist_lightning.runs import snapshots
from mnist_lightning.runs.predictions_csv import PredictionsTable
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.runs.snapshots import Digit, Filters, Part, Snapshot
from mnist_lightning.text import say
from mnist_lightning.training.callbacks.ema import ExponentialMovingAverage
from mnist_lightning.training.callbacks.prediction_collector import PredictionCollector
from mnist_lightning.training.callbacks.rng_state import unchanged_random_states
from mnist_lightning.training.lightning_module import DigitClassifier, network_of
from mnist_lightning.training.logger import as_float

LEVELS = 127  # of a weight's absolute value


class EpochSnapshots(Callback):
    """Writes a snapshot before the first epoch and after each epoch.

    It has no effect on the weights, and validates nothing: it uses the predictions of the epoch's
    validation. Only if the epoch ends without a validation, it computes the prediction of one
    image.

    Args:
        run: the run directory.
        predictions: collects the predictions of the validation; must precede this callback.
        epochs: the number of epochs completed before; later snapshots are removed.
    """

    def __init__(self, run: Run, predictions: PredictionCollector, epochs: int) -> None:
        self.run = run
        self.predictions = predictions
        self.epochs = epochs
        self._validated_step = -1
        self._has_failed = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the snapshots after the checkpoint; write that of the initial weights."""
        snapshots.remove_later_snapshots(self.run.snapshots, self.epochs)
        if trainer.global_step == 0:
            self._write(trainer, pl_module, 0)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the step of the validation."""
        if not trainer.sanity_checking:
            self._validated_step = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the snapshot of the epoch."""
        is_validated = self._validated_step == trainer.global_step
        table = self.predictions.table() if is_validated else None
        self._write(trainer, pl_module, trainer.current_epoch + 1, table)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the snapshot of a partial epoch, if a limit ended the training within an epoch.

        A validation of this step has no effect: a run that is killed here does not repeat it.
        """
        if not trainer.is_last_batch:
            self._write(trainer, pl_module, trainer.current_epoch + 1)

    def _write(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        epoch: int,
        table: PredictionsTable | None = None,
    ) -> None:
        pixels, label, part = _first_image(MNISTDataModule.of(trainer))
        with ExponentialMovingAverage.evaluated_weights(trainer, pl_module):
            filters = _quantize(inspection.first_layer_weights(network_of(pl_module)))
            if table is None:
                probabilities = _predict(pl_module, pixels)
            else:
                probabilities = torch.from_numpy(table.probabilities[0])
        digit = Digit(pixels.numpy().tobytes(), label, part, _rounded(probabilities))
        confusion = None if table is None else _confusion(table)
        snapshot = Snapshot(epoch, trainer.global_step, filters, digit, confusion)
        try:
            snapshots.write_snapshot(self.run.snapshots, snapshot)
        except OSError as error:  # only the page needs it
            if not self._has_failed:
                reason = f"{self.run.snapshots}: {(error.strerror or str(error)).lower()}"
                say(
                    f"no snapshot of epoch {epoch}: {reason}; the training continues",
                    file=sys.stderr,
                )
            self._has_failed = True


def _first_image(data: MNISTDataModule) -> tuple[Tensor, int, Part]:
    """Return the first image of the validation set, or without one of the training set."""
    is_validated = len(data.val_indices) > 0
    index = int((data.val_indices if is_validated else data.train_indices)[0])
    pixels, label = data.data.train_images[index], int(data.data.train_labels[index])
    return pixels, label, "validation" if is_validated else "training"


def _predict(pl_module: LightningModule, pixels: Tensor) -> Tensor:
    """Return the probabilities (C,) of an image (28, 28)."""
    network = network_of(pl_module)
    # A compiled network would be compiled again, for a batch of one image.
    is_compiled = isinstance(pl_module, DigitClassifier) and pl_module.compile_network
    eager = torch.compiler.set_stance("force_eager") if is_compiled else nullcontext()
    with unchanged_random_states(), eager:
        logits = inspection.compute_logits(network, normalize(pixels.unsqueeze(0)))
    return logits[0].float().cpu().softmax(dim=0)


def _rounded(probabilities: Tensor) -> list[float] | None:
    if len(probabilities) > snapshots.MAX_PROBABILITIES or not probabilities.isfinite().all():
        return None
    return [round(probability, 6) for probability in probabilities.tolist()]


def _confusion(table: PredictionsTable) -> list[list[int]] | None:
    classes = table.probabilities.shape[1]
    if classes > snapshots.MAX_CLASSES:
        return None
    counts: list[list[int]] = metrics.confusion(table.true, table.predicted, classes).tolist()
    return counts


def _quantize(weights: Tensor | None) -> Filters | None:
    """Round filters (N, H, W) to 8 bits: the first ones that fit into a snapshot."""
    if weights is None or max(weights.shape[1:]) > snapshots.MAX_FILTER_SIDE:
        return None
    total, height, width = weights.shape
    count = min(total, snapshots.MAX_FILTERS, snapshots.MAX_FILTER_VALUES // (height * width))
    shown = weights[:count].float().cpu()
    scale = as_float(shown.abs().max())
    if not math.isfinite(scale) or scale > snapshots.MAX_WEIGHT:
        return None
    values = (shown / scale * LEVELS).round() if scale > 0 else shown
    content = values.to(torch.int8).numpy().tobytes()
    return Filters(total, (count, height, width), scale, content)
