"""Write a run's images, graph, histograms and hyperparameters for TensorBoard."""

import contextlib
import copy
import io
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.evaluation import image_grid, metrics, plots
from mnist_lightning.files import remove
from mnist_lightning.networks import inspection
from mnist_lightning.preprocessing.normalization import MEAN, PAPER, STD, normalize
from mnist_lightning.runs.predictions_csv import PredictionsTable
from mnist_lightning.text import say
from mnist_lightning.training.callbacks.prediction_collector import PredictionCollector
from mnist_lightning.training.lightning_module import DigitClassifier, network_of
from mnist_lightning.training.logger import RunLogger

Level = Literal["none", "basic", "full"]
MAX_IMAGES = 20  # of a grid, in rows of 10
MAX_EMBEDDINGS = 1000  # images in the projector
EMBEDDING_FOLDER = "00000"  # chosen by SummaryWriter
# Charts with several curves.
LAYOUT = {
    "train and validation": {
        "loss": ["Multiline", ["train/loss", "val/loss"]],
        "accuracy": ["Multiline", ["train/accuracy", "val/accuracy"]],
    }
}


class Dashboards(Callback):
    """Fills TensorBoard's dashboards, without any effect on the trained weights.

    At the start of the run: a chart of training and validation, samples, the first augmented batch
    and the network's graph. At the end of each epoch: images per second, the most confident
    mistakes of the validation and the filters of the first layer. After the test: its mistakes,
    confusion matrix, precision and recall of each digit, the input of the last layer (for the
    projector), and the hyperparameters with the results. `full` adds at the end of each epoch the
    confusion matrix, precision and recall, and histograms of weights and gradients.

    Args:
        logger: the run's logger.
        predictions: collects the predictions of the validation; must precede this callback.
        level: `basic`, or `full` for dashboards that take more time.
    """

    def __init__(self, logger: RunLogger, predictions: PredictionCollector, level: Level) -> None:
        self.board: SummaryWriter = logger.experiment
        self.folder = Path(logger.folder)
        self.full = level == "full"
        self.predictions = predictions
        self._started_at = 0.0
        self._first_step = 0
        self._validated_step = -1

    def on_load_checkpoint(self, trainer: Trainer, _: Any, checkpoint: dict[str, Any]) -> None:
        """Restore the step of the last validation, which is already shown."""
        state = checkpoint["callbacks"].get("RunCheckpoints", {})
        self._validated_step = state.get("validated_step", -1)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show samples and the graph; a resumed run has them already."""
        self._started_at, self._first_step = time.perf_counter(), trainer.global_step
        if trainer.global_step > 0:
            return
        data = MNISTDataModule.of(trainer)
        self.board.add_custom_scalars(LAYOUT)
        pixels, labels = data.data.train_images, data.data.train_labels
        indices = data.train_indices[:MAX_IMAGES]
        captions = [f"true {label}" for label in labels[indices]]
        self._add_image("samples/train", image_grid.grid(pixels[indices].numpy(), 10, captions), 0)
        if data.augment and trainer.train_dataloader is not None:
            batch = trainer.train_dataloader.dataset[0, 0][0][:MAX_IMAGES]
            self._add_image("samples/augmented", image_grid.grid(_as_pixels(batch), 10), 0)
        self._add_graph(network_of(pl_module))

    def _add_graph(self, network: nn.Module) -> None:
        """Show the network's graph; print a message if it cannot be traced."""
        blank = torch.full((1, 1, 28, 28), PAPER)
        try:
            network = copy.deepcopy(network).eval().float().cpu()
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")  # the tracer is deprecated, and reports constants
                self.board.add_graph(network, blank)
        except Exception as error:  # tracing executes arbitrary code of a network
            say(f"No graph in TensorBoard: tracing the network failed ({type(error).__name__}).")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the timer."""
        self._started_at, self._first_step = time.perf_counter(), trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Show the speed and the weights after an epoch's last batch, while gradients exist."""
        if not trainer.is_last_batch:
            return
        network, data = network_of(pl_module), MNISTDataModule.of(trainer)
        seconds = time.perf_counter() - self._started_at
        steps = trainer.global_step - self._first_step
        # Count steps, because the run may have been resumed within the epoch.
        images = steps * trainer.accumulate_grad_batches * data.batch_size
        images = min(images, len(data.train_indices))
        self.board.add_scalar("images_per_second", images / seconds, trainer.global_step)
        if self.full:
            for name, parameter in network.named_parameters():
                self._add_histogram(f"weights/{name}", parameter, trainer.global_step)
                self._add_histogram(f"gradients/{name}", parameter.grad, trainer.global_step)
        filters = inspection.first_layer_weights(network)
        if filters is not None:
            pixels = image_grid.as_pixels(filters.float().cpu().numpy()[:MAX_IMAGES])
            zoom = max(1, 56 // pixels.shape[-1])
            grid = image_grid.grid(pixels, min(10, len(pixels)), zoom=zoom)
            self._add_image("filters/first layer", grid, trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the results on the validation set, once per step.

        While gradients are accumulated, several validations may follow one step.
        """
        data = MNISTDataModule.of(trainer)
        if trainer.global_step != self._validated_step:
            self._validated_step = trainer.global_step
            pixels, step = data.data.train_images, trainer.global_step
            table = self.predictions.table()
            self._show_predictions(table, pixels, data.val_indices, "val", self.full, step)

    def _show_predictions(
        self,
        table: PredictionsTable,
        pixels: Tensor,
        rows: Tensor,
        stage: str,
        full: bool,
        step: int,
    ) -> None:
        """Show the most confident mistakes; if `full`, the confusion matrix, precision and recall.

        Show nothing if the network diverged.
        """
        true, predicted, probabilities = table
        if not np.isfinite(probabilities).all():
            return
        indices = metrics.surest_mistakes(true, probabilities)[:MAX_IMAGES]
        if len(indices) > 0:
            scores = probabilities.max(axis=1)
            captions = [f"{true[i]} as {predicted[i]} {scores[i]:4.0%}" for i in indices]
            grid = image_grid.grid(pixels[rows[indices]].numpy(), 10, captions, zoom=3)
            self._add_image(f"mistakes/{stage}", grid, step)
        if full:
            figure = plots.confusion(metrics.confusion(true, predicted, probabilities.shape[1]))
            self._add_image(f"confusion/{stage}", plots.pixels(figure), step, "HWC")
            for digit, column in enumerate(probabilities.T):
                tag = f"precision and recall, {stage}/{digit}"
                self.board.add_pr_curve(tag, true == digit, column, step)

    def show_test(
        self, model: DigitClassifier, data: MNISTDataModule, table: PredictionsTable, step: int
    ) -> None:
        """Show the results of the test: mistakes, confusion matrix and embeddings."""
        if not np.isfinite(table.probabilities).all():
            return
        pixels = data.data.test_images
        rows = torch.arange(len(pixels))
        self._show_predictions(table, pixels, rows, "test", True, step)
        embedded = pixels[: len(table.true)][:MAX_EMBEDDINGS]
        # A resumed run is tested again, and replaces the embeddings.
        remove(self.folder / EMBEDDING_FOLDER)
        features = inspection.penultimate_features(model.network, normalize(embedded))
        if features is not None:
            labels = list(zip(table.true, table.predicted, strict=True))[:MAX_EMBEDDINGS]
            images, header = 1 - embedded.unsqueeze(1) / 255, ["true", "predicted"]
            self.board.add_embedding(
                features.float().cpu(), labels, images, tag="test", metadata_header=header
            )

    def show_hyperparameters(
        self, settings: Mapping[str, bool | float | str], results: Mapping[str, float], step: int
    ) -> None:
        """Show the hyperparameters with the final metrics."""
        for name, value in results.items():
            if not name.startswith("test/"):  # they are logged already
                self.board.add_scalar(name, value, step)
        writer = self.board._get_file_writer()
        for summary in hparams(dict(settings), dict(results)):
            writer.add_summary(summary)

    def _add_histogram(self, tag: str, values: Tensor | None, step: int) -> None:
        """Show a histogram, unless values are missing or not finite."""
        if values is not None and torch.isfinite(values).all():
            self.board.add_histogram(tag, values, step)

    def _add_image(self, tag: str, image: image_grid.Pixels, step: int, layout: str = "HW") -> None:
        self.board.add_image(tag, image, step, dataformats=layout)


def _as_pixels(images: Tensor) -> image_grid.Pixels:
    """Undo the normalization of images (B, 1, 28, 28)."""
    pixels = images[:, 0].float().cpu().mul(STD).add(MEAN).clamp(0, 1).mul(255)
    return np.asarray(pixels.round().byte().numpy())
