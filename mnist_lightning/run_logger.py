"""A run's figures in its own folder: TensorBoard events and `metrics.csv`, each written once."""

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from tensorboard.compat.proto.event_pb2 import Event
from torch.utils.tensorboard import SummaryWriter

from mnist_lightning.files import write_atomically
from mnist_lightning.tables import METRICS_FILE, MetricsFile, cut_metrics, read_metrics

FLUSH_SECONDS = 5.0


def as_float(value: Any) -> float:
    """A metric as a number of no more digits than the float32 it was computed in."""
    return float(f"{float(value):.7g}")


class RunLogger(Logger):
    """Writes metrics into a run's folder; a (tag, step) is written once, and steps only rise.

    Args:
        folder: the run's folder.
        dataset: name of the data set; stands in each row and in TensorBoard's text tab.
    """

    def __init__(self, folder: Path, dataset: str) -> None:
        super().__init__()
        self.folder = folder
        self.experiment = SummaryWriter(str(folder))
        if not (folder / METRICS_FILE).exists():  # a run that goes on has said it
            self.experiment.add_text("dataset", dataset, 0)
        self._metrics_file = MetricsFile(folder / METRICS_FILE, dataset)
        self._last_step = {
            tag: int(row["step"])
            for row in read_metrics(folder / METRICS_FILE)
            for tag, value in row.items()
            if value
        }
        self._flushed_at = time.monotonic()

    @property
    def name(self) -> str:
        """Nothing: what Lightning's callbacks save goes straight into `save_dir`."""
        return ""

    @property
    def version(self) -> str:
        """Nothing: what Lightning's callbacks save goes straight into `save_dir`."""
        return ""

    @property
    def save_dir(self) -> str:
        """Where Lightning and its callbacks may put files."""
        return str(self.folder)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write the value of each metric at `step`."""
        assert step is not None, "a metric without a step belongs to no place on a curve"
        fresh = {tag: as_float(value) for tag, value in metrics.items() if self._rises(tag, step)}
        for tag, value in fresh.items():
            self.experiment.add_scalar(tag, value, step)
        if fresh:
            self._metrics_file.add(fresh, step)
        if time.monotonic() - self._flushed_at > FLUSH_SECONDS:
            self.flush()

    def _rises(self, tag: str, step: int) -> bool:
        if step <= self._last_step.get(tag, -1):
            return False
        self._last_step[tag] = step
        return True

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: a run's settings are in its `config.yaml`."""

    def flush(self) -> None:
        """Bring everything logged so far to the files."""
        self.experiment.flush()
        self._metrics_file.flush()
        self._flushed_at = time.monotonic()

    def finalize(self, status: str) -> None:
        """Bring everything to the files; a test may follow."""
        self.flush()

    def close(self) -> None:
        """Bring everything to the files, for good."""
        self.flush()
        self.experiment.close()


def cut_back(folder: Path, step: int) -> None:
    """Drop from a run's logs what came after `step`; call it while no logger is open.

    A run that was killed logged steps after its last checkpoint; resumed, it takes them again.
    """
    cut_metrics(folder / METRICS_FILE, step)
    for path in folder.glob("events.out.tfevents.*"):
        content = path.read_bytes()
        kept = b"".join(record for record in _records(content) if _stays(record, step))
        if kept != content:
            write_atomically(kept, path)


# A record of an event file: its length (64 bits), a checksum of the length (32), its data, and a
# checksum of the data (32).
_HEADER, _FOOTER = 12, 4


def _records(content: bytes) -> Iterator[bytes]:
    position = 0
    while position + _HEADER <= len(content):
        (length,) = struct.unpack_from("<Q", content, position)
        end = position + _HEADER + length + _FOOTER
        if length == 0 or end > len(content):
            return  # torn when the run was killed
        yield content[position:end]
        position = end


def _stays(record: bytes, step: int) -> bool:
    event = Event.FromString(record[_HEADER:-_FOOTER])
    # Hyper-parameters come with the final figures, which the run will have anew.
    ended = any(value.tag.startswith(("_hparams_/", "final/")) for value in event.summary.value)
    return event.step <= step and not ended
