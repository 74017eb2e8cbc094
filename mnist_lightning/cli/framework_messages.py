"""Hide the messages of the framework that do not apply to a run of this package."""

import logging
import warnings

from mnist_lightning.data.reader import FallbackWarning, SkippedWarning

# Warnings of Lightning about intended behavior.
_IGNORED_WARNINGS = (
    ".*smaller than the logging interval",
    ".*callbacks used to create the checkpoint need",  # a test needs no callbacks
    "GPU available but not used",  # the user chose it
    ".*but have no logger configured",  # an evaluation prints its metrics
    "The dirpath has changed from",  # a test of a checkpoint from a stock Trainer
    "Total length of `list` across ranks is zero",  # no validation set: `show_start` reports it
    ".*It is recommended to use .self.log.*sync_dist",  # the means are over all processes
    ".*`srun` command is available on your system",  # the user may not want it
    ".*LeafSpec.* is deprecated",  # lightning's own call
)


def configure_warnings() -> None:
    """Hide the messages of the framework that do not apply here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It logs only what its argument `verbose` asks for.
    logging.getLogger("lightning.pytorch.callbacks.early_stopping").setLevel(logging.INFO)
    for category in (FallbackWarning, SkippedWarning):  # `show_data_notices` reports them
        warnings.filterwarnings("ignore", category=category)
    for text in _IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", text)
