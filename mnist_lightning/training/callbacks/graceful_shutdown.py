"""End a run on Ctrl-C or SIGTERM at the next point where it can be saved."""

import signal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from mnist_lightning import distributed


class GracefulShutdown(Callback):
    """Records the first SIGINT or SIGTERM; RunCheckpoints saves the run, and then ends it.

    The second Ctrl-C ends the program at once, in case it hangs.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._shared_signal: signal.Signals | None = None  # known to all processes
        self._steps = 0

    @property
    def status(self) -> int:
        """The exit status by the convention of shells: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + (self.signal or signal.SIGINT)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's signal handlers; Lightning restores the earlier handlers at the end.

        An ignored signal (nohup, a background job of a shell) stays ignored.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._record)
        # Lightning's handler may have received a signal, and would end the run without saving.
        connector = trainer._signal_connector
        if connector.received_sigterm:
            connector.received_sigterm = False
            self.signal = self.signal or signal.SIGTERM

    def _record(self, number: int, _: object) -> None:
        self.signal = self.signal or signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def is_requested_at_step(self, trainer: Trainer, is_due: bool) -> bool:
        """Like `is_requested`, but several processes communicate only at every tenth step."""
        self._steps += 1
        if distributed.world_size() > 1 and self._steps % 10:
            return False
        return self.is_requested(trainer, is_due)

    def is_requested(self, trainer: Trainer, is_due: bool = False) -> bool:
        """Return whether any process received a signal, or has `is_due` set."""
        if distributed.world_size() == 1:
            self._shared_signal = self.signal
            return is_due or self.signal is not None
        device = trainer.strategy.root_device
        number = distributed.all_reduce_max(self.signal or int(is_due), device)
        if number > 1:  # the next call handles a signal that arrives after this
            self.signal = self._shared_signal = signal.Signals(number)
        return number > 0

    def raise_if_requested(self) -> None:
        """End the training if all processes know of a signal.

        Raises:
            KeyboardInterrupt: to end the training.
        """
        if self._shared_signal is not None:
            raise KeyboardInterrupt
