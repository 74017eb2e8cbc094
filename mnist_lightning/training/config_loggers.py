"""The loggers that a configuration names: they get its settings and the final results."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from mnist_lightning.errors import UserError
from mnist_lightning.runs.config import Config, flatten, format_setting, readable_name

MAX_REASON_CHARS = 300  # of another library's error message


def log_settings(loggers: Sequence[Logger], config: Config) -> None:
    """Log all settings that are not null, by dotted names such as `model.optimizer.lr`.

    Raises:
        UserError: a logger cannot write, for example because its server cannot be reached.
    """
    settings = {}
    for path, value in flatten(config).items():
        if path.endswith(".class_path"):
            value = value.rpartition(".")[2]
        if value is not None:
            settings[readable_name(path)] = (
                value if isinstance(value, bool | int | float) else _text(value)
            )
    for logger in loggers:
        try:
            logger.log_hyperparams(settings)
        except Exception as error:  # of any library
            reason = " ".join(f"{type(error).__name__} {error}".split())[:MAX_REASON_CHARS]
            problem = f"--trainer.logger {type(logger).__name__}: {reason}"
            raise UserError(f"{problem}; correct its arguments, or use another logger") from None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else format_setting(value)


def log_results(loggers: Sequence[Logger], results: dict[str, float], step: int) -> None:
    """Log the final results, and complete the logs."""
    for logger in loggers:
        logger.log_metrics(results, step)
        logger.finalize("success")
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()  # otherwise the next run of this process is added to it


def log_location(logger: Logger) -> str:
    """Return where a logger writes."""
    if isinstance(logger, WandbLogger):
        return str(logger.experiment.dir)
    if isinstance(logger, MLFlowLogger):
        return f"{logger._tracking_uri}, run {logger.run_id}"
    return str(logger.log_dir or logger.save_dir)


def viewing_commands(loggers: Sequence[Logger]) -> list[str]:
    """Return the commands that show the logs."""
    commands = []
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            commands.append(f"tensorboard --logdir {logger.root_dir}")
        elif isinstance(logger, MLFlowLogger):
            commands.append(f"mlflow ui --backend-store-uri {logger._tracking_uri}")
        elif isinstance(logger, WandbLogger) and logger._offline:
            commands.append(f"wandb sync {logger.experiment.dir.removesuffix('/files')}")
    return commands
