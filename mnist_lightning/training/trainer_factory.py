"""Make the trainers of a run: for training, for validation and for the test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from mnist_lightning.errors import UserError
from mnist_lightning.training.callbacks.checkpointing import AtomicCheckpointIO
from mnist_lightning.training.trainer import RunTrainer


class TrainerFactory:
    """Makes trainers with the same options.

    Args:
        options: of the trainer, its classes instantiated.
        sign: whether checkpoints are the user's own, and signed.
    """

    def __init__(self, options: dict[str, Any], sign: bool) -> None:
        self._options = options
        self._sign = sign

    @property
    def callbacks(self) -> list[Callback]:
        """The callbacks of the configuration."""
        return _listed(self._options["callbacks"])

    def __call__(
        self,
        logger: Logger | None = None,
        callbacks: Sequence[Callback] = (),
        folder: Path | None = None,
    ) -> Trainer:
        """Make a trainer.

        Args:
            logger: of the run; None logs nothing. A logger of the configuration replaces it.
            callbacks: of the run; they follow those of the configuration.
            folder: of the run, where callbacks of the configuration may write files.

        Raises:
            UserError: the options contradict each other, or do not fit this machine.
        """
        own_logger = self._options["logger"] not in (None, True)
        changed = {
            "logger": self._options["logger"] if own_logger else logger or False,
            "callbacks": [*self.callbacks, *callbacks],
            "plugins": [
                *_listed(self._options["plugins"]),
                AtomicCheckpointIO(folder, self._sign),
                *_cluster(),
            ],
            "enable_progress_bar": False,  # the progress callback shows it
            "enable_model_summary": False,
            "default_root_dir": folder or self._options["default_root_dir"],
        }
        try:
            trainer = RunTrainer(**self._options | changed)
        except (MisconfigurationException, ImportError, ValueError, TypeError) as error:
            raise UserError(f"--trainer: {' '.join(str(error).split())}", status=2) from None
        self._refuse_other_strategies(trainer)
        return trainer

    def _refuse_other_strategies(self, trainer: Trainer) -> None:
        strategy = trainer.strategy
        by_script = isinstance(strategy, DDPStrategy) and isinstance(
            strategy.launcher, _SubprocessScriptLauncher
        )
        if not by_script and not isinstance(strategy, SingleDeviceStrategy):
            raise UserError(
                f"--trainer.strategy {self._options['strategy']}: expected one process, or ddp",
                status=2,
            )


def _cluster() -> list[SLURMEnvironment]:
    """SLURM, if it started this process, without Lightning's requeueing.

    Lightning would save outside the run, and take over the signals on which a run saves itself.
    """
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
