"""End a run on Ctrl-C or SIGTERM at the next point where it can be saved."""

import signal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from mnist_lightning import distributed


class GracefulShutdown(Callback):
    """Notes the first SIGINT or SIGTERM; whoever keeps the run ends it when all is saved.

    The second Ctrl-C is Python's own again, for a program that hangs.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._agreed: signal.Signals | None = None  # what all processes have heard of
        self._steps = 0

    @property
    def status(self) -> int:
        """The exit status as shells have it: 130 for an interrupt, 143 for a termination."""
        return 128 + (self.signal or signal.SIGINT)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen, in place of Lightning's own handlers; Lightning puts back all that were before.

        Where somebody ignores a signal (nohup, a shell's background) it stays ignored.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)
        # Lightning's own handler was there since a moment ago, and would end the run unsaved.
        connector = trainer._signal_connector
        if connector.received_sigterm:
            connector.received_sigterm = False
            self.signal = self.signal or signal.SIGTERM

    def _note(self, number: int, _: object) -> None:
        self.signal = self.signal or signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def heard_at_step(self, trainer: Trainer, otherwise: bool) -> bool:
        """As `heard`; several processes ask each other at every tenth step only."""
        self._steps += 1
        if distributed.count() > 1 and self._steps % 10:
            return False
        return self.heard(trainer, otherwise)

    def heard(self, trainer: Trainer, otherwise: bool = False) -> bool:
        """Tell whether a signal was noted, or `otherwise`; of several processes, by any of them."""
        if distributed.count() == 1:
            self._agreed = self.signal
            return otherwise or self.signal is not None
        number = distributed.all_reduce_max(
            self.signal or int(otherwise), trainer.strategy.root_device
        )
        if number > 1:  # one that came since is heard the next time
            self.signal = self._agreed = signal.Signals(number)
        return number > 0

    def end_if_asked(self) -> None:
        """End the training here.

        Raises:
            KeyboardInterrupt: a signal was heard of, by all of several processes.
        """
        if self._agreed is not None:
            raise KeyboardInterrupt
