"""Show the progress: a bar on a terminal, and a line for each epoch."""

import math
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, Timer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.text import duration
from mnist_lightning.training.lightning_module import DigitClassifier

REFRESH_SECONDS = 0.2
STATUS_WIDTH = 71  # of the line, without the bar
# Training is measured while the network learns, validation after the epoch.
HEADER = f"""\
{"train, while learning":>30}{"val, after the epoch":>22}
   epoch      loss    accuracy      loss    accuracy        correct      time"""


class ProgressLines(Callback):
    """Prints a row of a table at each epoch's end, and shows a bar within the epoch on a terminal.

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
        self._shown_at = self._epoch_began = self._first_ended = 0.0
        self._batches = -1  # of this epoch after the first one, which is slower
        self._diverged = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the header of the table, and open the bar."""
        if trainer.is_global_zero:
            self._print(HEADER)
        if self.bar and trainer.is_global_zero:
            width = max(4, min(40, self.console.width - STATUS_WIDTH))
            columns = (
                TextColumn("{task.description}"),
                BarColumn(width),
                TextColumn("{task.fields[status]}"),
            )
            # The thread of `auto_refresh` would slow down training.
            self._progress = Progress(
                *columns, console=self.console, transient=True, auto_refresh=False
            )
            self._progress.start()
        self._start_epoch(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a bar for the epoch."""
        self._start_epoch(trainer)

    def _start_epoch(self, trainer: Trainer) -> None:
        self._epoch_began = time.perf_counter()
        self._batches = -1
        if self._progress is not None:
            for task in self._progress.task_ids:
                self._progress.remove_task(task)
            total = trainer.num_training_batches
            self._progress.add_task(_epoch(trainer), total=total, status="")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show that the network is validated."""
        if self._progress is not None:
            task = self._progress.task_ids[0]
            self._progress.update(task, status="validating", refresh=True)

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
        self._batches += 1
        if self._batches == 0:
            self._first_ended = self._shown_at = time.perf_counter()
            return
        is_due = time.perf_counter() - self._shown_at > REFRESH_SECONDS or trainer.is_last_batch
        if self._progress and is_due:
            self._shown_at = time.perf_counter()
            status = self._status(trainer, pl_module, batch_idx + 1)
            task = self._progress.task_ids[0]
            self._progress.update(task, completed=batch_idx + 1, status=status, refresh=True)

    def _status(self, trainer: Trainer, pl_module: LightningModule, done: int) -> str:
        """Return the means of the epoch so far, the speed, and the remaining time."""
        seconds_per_batch = (time.perf_counter() - self._first_ended) / self._batches
        speed = MNISTDataModule.of(trainer).batch_size / seconds_per_batch
        in_epoch = int(trainer.num_training_batches) - done
        in_run = _remaining_batches(trainer, in_epoch)
        label = "epoch ends in" if in_run is None else "remaining"
        seconds = (in_epoch if in_run is None else in_run) * seconds_per_batch
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined] # set by Trainer
        left = [each.time_remaining() for each in callbacks if isinstance(each, Timer)]
        remaining = duration(min([seconds, *(each for each in left if each is not None)]))
        parts = [f"{speed:,.0f} images/s", f"{label} {remaining}"]
        if isinstance(pl_module, DigitClassifier):
            means = pl_module.train_metrics.means_so_far()
            loss, accuracy = means["loss"], 100 * means["accuracy"]
            parts = [f"loss {loss:.3f}", f"accuracy {accuracy:.1f} %", *parts]
        return "  ".join(parts)

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's line."""
        if not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        cells = [f"{_epoch(trainer).removeprefix('epoch').strip():>8}"]
        for stage in ("train", "val"):
            known = f"{stage}/loss" in metrics
            loss = f"{metrics[f'{stage}/loss']:.4f}" if known else "-"
            accuracy = f"{100 * metrics[f'{stage}/accuracy']:.2f} %" if known else "-"
            cells.append(f"{loss:>10}{accuracy:>12}")
        correct = "-"
        if "val/accuracy" in metrics:
            data = MNISTDataModule.of(trainer)
            batches = sum(trainer.num_val_batches)
            total = int(min(len(data.val_indices), batches * data.eval_batch_size))
            correct = f"{round(float(metrics['val/accuracy']) * total)}/{total}"
        seconds = time.perf_counter() - self._epoch_began
        self._print("".join([*cells, f"{correct:>15}{f'{seconds:.1f} s':>10}"]))
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
        """Close the bar; print what ended the training early, or within an epoch."""
        self._close()
        if not trainer.is_global_zero:
            return
        for callback in trainer.early_stopping_callbacks:
            if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
                reason = callback.stopping_reason_message.partition(" Signaling")[0]
                self._print(
                    f"EarlyStopping ended the run in epoch {trainer.current_epoch}: {reason}"
                )
        if not trainer.is_last_batch:
            batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
            self._print(f"{_epoch(trainer)}  ended by a limit after batch {batches}")

    def on_exception(self, *_: Any) -> None:
        """Close the bar, so that the terminal stays usable."""
        self._close()

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _remaining_batches(trainer: Trainer, in_epoch: int) -> int | None:
    """Return the batches until the end of the run; None if its length is not known."""
    limits = []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        epochs_after = trainer.max_epochs - trainer.current_epoch - 1
        limits.append(in_epoch + epochs_after * int(trainer.num_training_batches))
    if trainer.max_steps > 0:
        steps = trainer.max_steps - trainer.global_step
        limits.append(steps * trainer.accumulate_grad_batches)
    return min(limits, default=None)


def _epoch(trainer: Trainer) -> str:
    """Return `epoch 3/10`, or only `epoch 3` if the total is unknown."""
    number, total = trainer.current_epoch + 1, trainer.max_epochs
    if total is None or total < 1:
        return f"epoch {number}"
    return f"epoch {number:{len(str(total))}}/{total}"
