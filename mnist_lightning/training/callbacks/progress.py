"""Show the progress: a bar on a terminal, and a line for each epoch."""

import math
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mnist_lightning.data.datamodule import MNISTDataModule

REFRESH_SECONDS = 0.2


class ProgressLines(Callback):
    """Prints a line at each epoch's end, and shows a bar within the epoch on a terminal.

    Args:
        console: the console.
        bar: whether to show a bar on a terminal.
        log_lines: print also a line with the loss after this number of batches.
    """

    def __init__(self, console: Console, bar: bool = True, log_lines: int | None = None) -> None:
        self.console = console
        self.log_lines = log_lines
        self.bar = bar and console.is_terminal
        self._progress: Progress | None = None
        self._shown_at = self._started_at = 0.0
        self._diverged = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar."""
        if self.bar and trainer.is_global_zero:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("batches"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
                auto_refresh=False,  # its thread would slow down training
            )
            self._progress.start()
        self._start_epoch(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a bar for the epoch."""
        self._start_epoch(trainer)

    def _start_epoch(self, trainer: Trainer) -> None:
        self._started_at = time.perf_counter()
        if self._progress is not None:
            for task in self._progress.task_ids:
                self._progress.remove_task(task)
            self._progress.add_task(_epoch(trainer), total=trainer.num_training_batches)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the bar a few times per second; print the batch's line if it is due."""
        if self.log_lines and (batch_idx + 1) % self.log_lines == 0:
            # Lightning divides the loss by the number of batches of a step.
            loss = float(trainer.strategy.reduce(outputs["loss"])) * trainer.accumulate_grad_batches
            data = MNISTDataModule.of(trainer)
            total = len(data.train_indices)
            done = min((batch_idx + 1) * data.batch_size, total)
            self._print(
                f"{_epoch(trainer)}  {done:{len(str(total))}}/{total} "
                f"({100 * done / total:3.0f} %)  loss {loss:.6f}"
            )
        if self._progress and time.perf_counter() - self._shown_at > REFRESH_SECONDS:
            self._shown_at = time.perf_counter()
            task = self._progress.task_ids[0]
            self._progress.update(task, completed=batch_idx + 1, refresh=True)

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's line."""
        if not trainer.is_global_zero:
            return
        seconds = time.perf_counter() - self._started_at
        metrics = trainer.callback_metrics
        parts = [_epoch(trainer)]
        for stage in ("train", "val"):
            if f"{stage}/loss" in metrics:
                loss, accuracy = metrics[f"{stage}/loss"], metrics[f"{stage}/accuracy"]
                parts.append(f"{stage} loss {loss:.4f} accuracy {100 * accuracy:6.2f} %")
        if "val/accuracy" in metrics:
            total = len(MNISTDataModule.of(trainer).val_indices)
            parts[-1] += f" ({round(float(metrics['val/accuracy']) * total)}/{total})"
        self._print("  ".join([*parts, f"{seconds:.1f} s"]))
        if not math.isfinite(metrics.get("train/loss", 0)):
            self._report_divergence(trainer, pl_module)

    def _report_divergence(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report once that weights are NaN or Inf; a loss may be Inf with finite weights."""
        if self._diverged or all(weight.isfinite().all() for weight in pl_module.parameters()):
            return
        self._diverged = True
        precise = trainer.precision in ("32-true", "64-true")
        remedy = "" if precise else f" or another --trainer.precision than {trainer.precision}"
        self._print(
            "Training diverged: the weights contain NaN or Inf. Stop the run (Ctrl-C) and train "
            f"again with a lower --model.optimizer.init_args.lr{remedy}."
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar; print where a limit ended the training within an epoch."""
        self._close()
        if not trainer.is_last_batch and trainer.is_global_zero:
            batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
            self._print(f"{_epoch(trainer)}  ended by a limit after batch {batches}")

    def on_exception(self, *_: Any) -> None:
        """Close the bar, so that the terminal stays usable."""
        self._close()

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _epoch(trainer: Trainer) -> str:
    """Return `epoch 3/10`, or only `epoch 3` if the total is unknown."""
    number, total = trainer.current_epoch + 1, trainer.max_epochs
    if total is None or total < 1:
        return f"epoch {number}"
    return f"epoch {number:{len(str(total))}}/{total}"
