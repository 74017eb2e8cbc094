"""Create the trainers of a run: for training, for validation and for the test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from mnist_lightning.errors import UserError
from mnist_lightning.training.checkpoint_io import AtomicCheckpointIO
from mnist_lightning.training.trainer import RunTrainer

PROFILE = "profile"  # the report of a profiler: `fit-profile-0.txt`
_OPTION_ERRORS = MisconfigurationException, ArithmeticError, ImportError, TypeError, ValueError


class TrainerFactory:
    """Creates trainers with the same options.

    Args:
        options: the arguments of the trainer, with instances of its classes.
        sign: whether to sign checkpoints as the user's own.

    Attributes:
        callbacks: the callbacks of the configuration.
        loggers: the loggers of the configuration; without `logger`, the run has its own.
        loaded: checkpoints that the trainers need not read again, by path.
    """

    def __init__(self, options: dict[str, Any], sign: bool) -> None:
        self._options = options
        self._sign = sign
        self.callbacks: list[Callback] = _as_list(options["callbacks"])
        named = options["logger"] not in (None, True, False)
        self.loggers: list[Logger] = _as_list(options["logger"]) if named else []
        self.loaded: dict[Path, dict[str, Any]] = {}

    def __call__(
        self,
        loggers: Sequence[Logger] = (),
        callbacks: Sequence[Callback] = (),
        folder: Path | None = None,
    ) -> Trainer:
        """Create a trainer.

        Args:
            loggers: where to log.
            callbacks: the run's callbacks, placed after those of the configuration.
            folder: the run directory, where callbacks of the configuration may write files.

        Raises:
            UserError: the options contradict each other, or do not fit this machine.
        """
        checkpoint_io = AtomicCheckpointIO(folder, self._sign, self.loaded)
        plugins = [*_as_list(self._options["plugins"]), checkpoint_io]
        if SLURMEnvironment.detect():
            # Lightning's requeueing would save outside the run, and handle the signals on which a
            # run saves itself.
            plugins.append(SLURMEnvironment(auto_requeue=False))
        overrides = {
            "logger": list(loggers) or False,
            "enable_autolog_hparams": False,  # `log_settings` logs the whole configuration
            "callbacks": [*self.callbacks, *callbacks],
            "plugins": plugins,
            # The progress callback shows a bar, unless the configuration has one.
            "enable_progress_bar": any(isinstance(each, ProgressBar) for each in self.callbacks),
            "enable_model_summary": False,
            "default_root_dir": folder or self._options["default_root_dir"],
        }
        try:
            trainer = RunTrainer(**self._options | overrides)
        except _OPTION_ERRORS as error:
            raise UserError(f"--trainer{self._explain(error)}", status=2) from None
        profiler: Profiler = trainer.profiler  # type: ignore[attr-defined] # set by Trainer
        is_wanted = self._options["profiler"] is not None and profiler.filename is None
        if folder is not None and is_wanted:
            profiler.dirpath, profiler.filename = folder, PROFILE
        self._check_strategy(trainer.strategy)
        return trainer

    def _explain(self, error: Exception) -> str:
        problem = " ".join(str(error).split())
        if "gpu backend" in problem or "accelerator is not available" in problem:
            accelerator = self._options["accelerator"]
            return f".accelerator {accelerator}: this machine has none; use auto or cpu"
        return f": {problem}"

    def _check_strategy(self, strategy: Strategy) -> None:
        is_launchable = isinstance(strategy.launcher, _SubprocessScriptLauncher)
        is_ddp = isinstance(strategy, DDPStrategy) and is_launchable
        if not is_ddp and not isinstance(strategy, SingleDeviceStrategy):
            raise UserError(
                f"Invalid --trainer.strategy {self._options['strategy']}: expected ddp, "
                "or auto with one device.",
                status=2,
            )


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
