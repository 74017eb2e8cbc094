"""What TensorBoard shows of a run besides its curves."""

import contextlib
import copy
import io
import shutil
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.evaluation import image_grid, metrics, plots
from mnist_lightning.networks import inspection
from mnist_lightning.preprocessing.mnist_format import MEAN, PAPER, STD, normalize
from mnist_lightning.runs.metrics_csv import PredictionsTable
from mnist_lightning.text import say
from mnist_lightning.training.callbacks.prediction_collector import PredictionCollector
from mnist_lightning.training.lightning_module import DigitClassifier
from mnist_lightning.training.logger import RunLogger

Level = Literal["none", "basic", "full"]
SHOWN = 20  # pictures in a grid, in rows of 10
EMBEDDED = 1000  # images in the projector
POINTS = "00000"  # the folder that SummaryWriter puts them in
# Charts with more than one curve.
LAYOUT = {
    "train and validation": {
        "loss": ["Multiline", ["train/loss", "val/loss"]],
        "accuracy": ["Multiline", ["train/accuracy", "val/accuracy"]],
    }
}


class Dashboards(Callback):
    """Fills TensorBoard's dashboards, without touching a bit of what is learned.

    Once, at the start: a chart with training and validation in it, samples, the first batch as it
    is augmented, and the network's graph. At each epoch's end: images a second, the surest
    mistakes of validation, the filters of the first layer. With the test: its mistakes, confusion
    matrix, precision and recall of each digit, what the last layer is given (for the projector),
    and the hyper-parameters with the final figures. `full` adds to each epoch's end the confusion
    matrix, precision and recall, and histograms of weights and gradients.

    Args:
        logger: the run's.
        predictions: who collects what validation says; before this one among the callbacks.
        level: `basic`, or `full` for what takes more time.
    """

    def __init__(
        self, logger: RunLogger, predictions: PredictionCollector, level: Level = "basic"
    ) -> None:
        self.board: SummaryWriter = logger.experiment
        self.folder = Path(logger.folder)
        self.full = level == "full"
        self.predictions = predictions
        self._started_at = 0.0
        self._trained = 0
        self._validated_step = -1

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on after the last validation: it was shown."""
        state = checkpoint["callbacks"].get("RunCheckpoints", {})
        self._validated_step = state.get("validated_step", -1)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show what the run begins with; a resumed one has shown it."""
        self._started_at, self._trained = time.perf_counter(), trainer.global_step
        if trainer.global_step > 0:
            return
        model, data = _known(trainer, pl_module)
        self.board.add_custom_scalars(LAYOUT)
        pixels, labels = data.data.train_images, data.data.train_labels
        chosen = data.train_indices[:SHOWN]
        captions = [f"true {label}" for label in labels[chosen]]
        self._picture("samples/train", image_grid.grid(pixels[chosen].numpy(), 10, captions), 0)
        if data.augment and trainer.train_dataloader is not None:
            batch = trainer.train_dataloader.dataset[0, 0][0][:SHOWN]
            self._picture("samples/augmented", image_grid.grid(_as_pictures(batch), 10), 0)
        self._graph(model)

    def _graph(self, model: DigitClassifier) -> None:
        """Show the network's graph; say so of one that cannot be traced."""
        network = copy.deepcopy(model.network).eval().float().cpu()
        blank = torch.full((1, 1, 28, 28), PAPER)
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")  # of the tracer: it is deprecated, sees constants
                self.board.add_graph(network, blank)
        except Exception as error:  # whatever a network does that a tracer cannot follow
            say(f"TensorBoard gets no graph of the network: {type(error).__name__}")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the time."""
        self._started_at, self._trained = time.perf_counter(), trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After an epoch's last batch, show how fast it was; gradients are still there."""
        if not trainer.is_last_batch:
            return
        model, data = _known(trainer, pl_module)
        seconds, steps = time.perf_counter() - self._started_at, trainer.global_step - self._trained
        # By steps, for an epoch may have been resumed in its middle.
        images = min(
            steps * trainer.accumulate_grad_batches * data.batch_size, len(data.train_indices)
        )
        self.board.add_scalar("images_per_second", images / seconds, trainer.global_step)
        if self.full:
            for name, parameter in model.network.named_parameters():
                self._histogram(f"weights/{name}", parameter, trainer.global_step)
                self._histogram(f"gradients/{name}", parameter.grad, trainer.global_step)
        filters = inspection.first_filters(model.network)
        if filters is not None:
            pictures = image_grid.as_pixels(filters.float().cpu().numpy()[:SHOWN])
            zoom = max(1, 56 // pictures.shape[-1])
            sheet = image_grid.grid(pictures, min(10, len(pictures)), zoom=zoom)
            self._picture("filters/first layer", sheet, trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show what the network made of the images held out, once a step.

        While gradients are accumulated, several validations may follow one step.
        """
        _, data = _known(trainer, pl_module)
        table, step = self.predictions.table(), trainer.global_step
        if step == self._validated_step:
            return
        self._validated_step = step
        if not np.isfinite(table.probabilities).all():
            return  # it diverged, and says nothing
        self._mistakes(table, data.data.train_images[data.val_indices], "val", step)
        if self.full:
            self._confusion(table, "val", step)
            self._precision_and_recall(table, "val", step)

    def _mistakes(self, table: PredictionsTable, pixels: Tensor, stage: str, step: int) -> None:
        """Show what was read wrongly, the surest first."""
        worst = metrics.surest_mistakes(table.true, table.probabilities)[:SHOWN]
        if len(worst) == 0:
            return
        surest = table.probabilities.max(axis=1)
        captions = [f"{table.true[i]} as {table.predicted[i]} {surest[i]:4.0%}" for i in worst]
        sheet = image_grid.grid(pixels[worst].numpy(), 10, captions, zoom=3)
        self._picture(f"mistakes/{stage}", sheet, step)

    def _confusion(self, table: PredictionsTable, stage: str, step: int) -> None:
        counts = metrics.confusion(table.true, table.predicted, table.probabilities.shape[1])
        figure = plots.confusion(counts)
        self._picture(f"confusion/{stage}", plots.pixels(figure), step, "HWC")

    def _precision_and_recall(self, table: PredictionsTable, stage: str, step: int) -> None:
        for digit, probabilities in enumerate(table.probabilities.T):
            tag = f"precision and recall, {stage}/{digit}"
            self.board.add_pr_curve(tag, table.true == digit, probabilities, step)

    def show_test(
        self, model: DigitClassifier, data: MNISTDataModule, table: PredictionsTable, step: int
    ) -> None:
        """Show what came out of the test: mistakes, confusion, and the projector's points."""
        if not np.isfinite(table.probabilities).all():
            return
        pixels = data.data.test_images
        self._mistakes(table, pixels, "test", step)
        self._confusion(table, "test", step)
        self._precision_and_recall(table, "test", step)
        chosen = pixels[: len(table.true)][:EMBEDDED]
        # One place for the points, also of a run that went on and is tested again.
        shutil.rmtree(self.folder / POINTS, ignore_errors=True)
        features = inspection.penultimate(model.network, normalize(chosen))
        if features is not None:
            labels = zip(table.true, table.predicted, strict=True)
            self.board.add_embedding(
                features.float().cpu(),
                list(labels)[:EMBEDDED],
                1 - chosen.unsqueeze(1) / 255,
                tag="test",
                metadata_header=["true", "read as"],
            )

    def show_settings(
        self, settings: Mapping[str, Any], figures: Mapping[str, float], step: int
    ) -> None:
        """Show the hyper-parameters with the final figures they led to."""
        for name, value in figures.items():
            if not name.startswith("test/"):  # those are logged
                self.board.add_scalar(name, value, step)
        writer = self.board._get_file_writer()
        for part in hparams(_shown(settings), dict(figures)):
            writer.add_summary(part)

    def _histogram(self, tag: str, values: Tensor | None, step: int) -> None:
        """Show how values spread; those of a run that diverged do not."""
        if values is not None and torch.isfinite(values).all():
            self.board.add_histogram(tag, values, step)

    def _picture(self, tag: str, pixels: image_grid.Pixels, step: int, layout: str = "HW") -> None:
        self.board.add_image(tag, pixels, step, dataformats=layout)


def _shown(settings: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """Settings as TensorBoard takes them: those that are on, classes by their bare names."""
    shown: dict[str, bool | float | str] = {}
    for name, value in settings.items():
        if name.endswith(".class_path"):
            shown[name.removesuffix(".class_path")] = value.rsplit(".", 1)[-1]
        elif value not in (None, False):
            plain = isinstance(value, bool | int | float | str)
            shown[name.replace(".init_args", "")] = value if plain else str(value)
    return shown


def _known(trainer: Trainer, pl_module: LightningModule) -> tuple[DigitClassifier, MNISTDataModule]:
    assert isinstance(pl_module, DigitClassifier)
    return pl_module, MNISTDataModule.of(trainer)


def _as_pictures(images: Tensor) -> image_grid.Pixels:
    """Undo the normalization of images (B, 1, 28, 28)."""
    pixels = images[:, 0].float().cpu().mul(STD).add(MEAN).clamp(0, 1).mul(255)
    return np.asarray(pixels.round().byte().numpy())
