"""Log a run to TensorBoard events and `metrics.csv`, each value once."""

import math
import struct
import time
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from lightning.pytorch.loggers import Logger
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from torch.utils.tensorboard import SummaryWriter

from mnist_lightning.errors import UserError
from mnist_lightning.files import move_aside, read_bounded, write_atomically
from mnist_lightning.runs.metrics_csv import (
    KEYS,
    METRICS_FILE,
    MetricsFile,
    cut_metrics,
    read_metrics,
)
from mnist_lightning.text import say

FLUSH_SECONDS = 5.0
# Of all files of a run from elsewhere: checksums take 0.22 s a megabyte, or 13 s a million short
# records.
MAX_CHECKED_BYTES = 40_000_000
MAX_EVENTS = 500_000


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
        resumed = any(path.stat().st_size > 0 for path in folder.glob("events.out.tfevents.*"))
        self.experiment = SummaryWriter(str(folder))
        if not resumed:
            self.experiment.add_text("dataset", dataset, 0)
        self._metrics_file = MetricsFile(folder / METRICS_FILE, dataset)
        self._last_step = {
            tag: int(row["step"])
            for row in read_metrics(folder / METRICS_FILE, cells=math.inf)
            for tag, value in row.items()
            if value and tag not in KEYS
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
        """Write the value of each metric at `step`, or at the last step if that is later.

        Lightning's own callbacks log what follows a step, a validation say, at the step before.
        """
        assert step is not None, "a metric without a step belongs to no place on a curve"
        step = max(step, *self._last_step.values(), 0)
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

    @property
    def last_steps(self) -> dict[str, int]:
        """The last step that each metric was logged at."""
        return dict(self._last_step)

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


def cut_back(
    folder: Path, step: int, logged: dict[str, int] | None = None, bounded: bool = True
) -> None:
    """Drop from a run's logs what came after a checkpoint; call it while no logger is open.

    A run that was killed logged steps after its last checkpoint; resumed, it takes them again.
    Damaged files are moved aside, and what is intact in them is kept.

    Args:
        folder: the run's folder.
        step: the checkpoint's.
        logged: the last step of each metric that had been logged by then; None: `step`. The test's
            figures, and the means of an epoch that a limit cut short, have the same step and came
            later.
        bounded: of a run from elsewhere, what exceeds a limit of size is damage.
    """
    cut_metrics(folder / METRICS_FILE, step, logged, bounded)
    limits = _Limits(MAX_EVENTS, MAX_CHECKED_BYTES) if bounded else _Limits(math.inf, math.inf)
    for path in sorted(folder.glob("events.out.tfevents.*")):
        intact, whole = _intact_events(path, limits)
        kept = b"".join(record for record in intact if _stays(record, step, logged))
        if not whole:
            # TensorBoard takes each file with `tfevents` in its name for one of its own.
            hidden = path.rename(path.with_name(path.name.replace("tfevents", "events")))
            aside = move_aside(hidden)
            say(f"{path} is damaged; kept as {aside.name}; {len(intact)} of its records stay")
        if not whole or kept != path.read_bytes():
            write_atomically(kept, path)


# A record of an event file: its length (64 bits), a checksum of the length (32), its data, and a
# checksum of the data (32).
_HEADER, _FOOTER = 12, 4


class _Limits:
    """How many records and bytes may still be read, of all event files together."""

    def __init__(self, records: float, content: float) -> None:
        self.records = records
        self.content = content


def _intact_events(path: Path, limits: _Limits) -> tuple[list[bytes], bool]:
    """Read the records before the first damaged one; tell whether all are intact.

    A last record that is incomplete was torn when the run was killed, which is no damage.
    """
    try:
        content = read_bounded(path, limits.content)
    except (OSError, UserError):  # a folder, a pipe, a link to nothing, no permission, too large
        return [], False
    records: list[bytes] = []
    position = 0
    while position + _HEADER <= len(content):
        length, checksum = struct.unpack_from("<QI", content, position)
        if masked_crc32c(content[position : position + 8]) != checksum:
            # Zeros: the machine stopped.
            return records, content.count(0, position) == len(content) - position
        end = position + _HEADER + length + _FOOTER
        if end > len(content):
            break
        data = content[position + _HEADER : end - _FOOTER]
        if masked_crc32c(data) != struct.unpack_from("<I", content, end - _FOOTER)[0]:
            return records, False
        records.append(content[position:end])
        limits.records -= 1
        limits.content -= end - position
        position = end
        if limits.records < 0:
            return records, False
    return records, True


# Scalars that do not pass through `RunLogger.log_metrics`.
_BESIDE_THE_LOGGER = ("images_per_second",)


def _stays(record: bytes, step: int, logged: dict[str, int] | None) -> bool:
    try:
        event = Event.FromString(record[_HEADER:-_FOOTER])
    except DecodeError:  # whole, and yet no event
        return False
    if event.step > step:
        return False
    for value in event.summary.value:
        if _is_of_the_test(value.tag):
            return False
        is_logged = value.HasField("simple_value") and value.tag not in _BESIDE_THE_LOGGER
        # Pictures of a validation come with its figures.
        metric = "val/loss" if _is_of_a_validation(value.tag) else value.tag if is_logged else None
        if logged is not None and metric is not None and event.step > logged.get(metric, -1):
            return False
    return True


def _is_of_a_validation(tag: str) -> bool:
    return tag in ("mistakes/val", "confusion/val") or tag.startswith("precision and recall, val/")


def _is_of_the_test(tag: str) -> bool:
    """Tell whether a run writes this once it was trained: a resumed run will write it anew."""
    begins = ("_hparams_/", "final/", "test/", "precision and recall, test/")
    return tag.startswith(begins) or tag in ("mistakes/test", "confusion/test")
