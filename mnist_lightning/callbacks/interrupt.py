"""Ctrl-C ends a run between two batches, never within a step, a validation or a save."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback


class Interrupt(Callback):
    """Notes a Ctrl-C, and ends the training at the next point where nothing is half done.

    A Ctrl-C in an epoch's last batch, its validation or its saving waits until the epoch is saved.
    The second one ends everything at once.
    """

    def __init__(self) -> None:
        self._asked = False

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Note a Ctrl-C in this block rather than raise it wherever the program happens to be."""
        before = signal.getsignal(signal.SIGINT)
        # Where somebody ignores interrupts (nohup, a shell's background) they stay ignored.
        if before is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _note(self, *_: object) -> None:
        self._asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End before an epoch: all that was done is saved."""
        self._end_if_asked()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """End after a batch, unless it is the epoch's last: that epoch is about to be saved."""
        if not trainer.is_last_batch:
            self._end_if_asked()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End before what follows the training."""
        self._end_if_asked()

    def _end_if_asked(self) -> None:
        if self._asked:
            raise KeyboardInterrupt
