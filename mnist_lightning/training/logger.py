"""Log a run to TensorBoard events and `metrics.csv`, each value once."""

import math
import re
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from lightning.pytorch.loggers import Logger
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from torch.utils.tensorboard import SummaryWriter

from mnist_lightning.errors import UserError
from mnist_lightning.files import read_bounded, rename_damaged, write_atomically
from mnist_lightning.runs.metrics_csv import METRICS_FILE, MetricsFile, truncate_metrics
from mnist_lightning.text import say

FLUSH_SECONDS = 5.0
# Limits for all event files of an untrusted run: checksums take 0.22 s per megabyte, or 13 s per
# million short records.
MAX_CHECKED_BYTES = 20_000_000
MAX_EVENTS = 250_000  # records, and the values in them
# A record may consist of empty values, which have 2 bytes in the file and 85 in memory.
MAX_RECORD_BYTES = 2_000_000
MAX_FILE_BYTES, MAX_OWN_FILE_BYTES = 100_000_000, 1_000_000_000

# Marks the end of an epoch in `metrics.csv`; as a curve, it is a straight line.
_ONLY_IN_TABLE = ("epoch",)

# Parts of a metric's name that could add a column, a line or a formula to `metrics.csv`.
_UNSAFE = re.compile(r"^[=+@-]|[,\"]|[^ -~\w]")


def as_float(value: Any) -> float:
    """Round a metric to 7 digits, the precision of the float32 that it was computed in."""
    return float(f"{float(value):.7g}")


class RunLogger(Logger):
    """Writes metrics into a run directory, each (tag, step) once and in increasing steps.

    The number of the epoch is only in `metrics.csv`.

    Args:
        folder: the run directory.
        dataset: the name of the data set, for each row and for TensorBoard's text tab.
    """

    def __init__(self, folder: Path, dataset: str) -> None:
        super().__init__()
        self.folder = folder
        resumed = any(path.stat().st_size > 0 for path in folder.glob("events.out.tfevents.*"))
        self.experiment = SummaryWriter(str(folder))
        if not resumed:
            self.experiment.add_text("dataset", dataset, 0)
        self._metrics_file = MetricsFile(folder / METRICS_FILE, dataset)
        self.last_steps = self._metrics_file.last_steps
        self._flushed_at = time.monotonic()

    @property
    def name(self) -> str:
        """Nothing: what Lightning's callbacks save goes straight into `save_dir`."""
        return ""

    version = name

    @property
    def save_dir(self) -> str:
        """The folder where Lightning and its callbacks may save files."""
        return str(self.folder)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write the value of each metric at `step`, or at the last step if that is later.

        Lightning's own callbacks log events after a step, such as a validation, at the step before.
        """
        assert step is not None, "a metric needs a step"
        metrics = {_UNSAFE.sub("_", tag): value for tag, value in metrics.items()}
        step = max(step, *self.last_steps.values(), 0)
        new = [tag for tag in metrics if step > self.last_steps.get(tag, -1)]
        values = {tag: as_float(metrics[tag]) for tag in new}
        for tag, value in values.items():
            if tag not in _ONLY_IN_TABLE:
                self.experiment.add_scalar(tag, value, step)
        if values:
            self._metrics_file.add(values, step)
        if time.monotonic() - self._flushed_at > FLUSH_SECONDS:
            self.flush()

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: a run's settings are in its `config.yaml`."""

    def flush(self) -> None:
        """Write everything logged so far to the files."""
        self.experiment.flush()
        self._metrics_file.flush()
        self._flushed_at = time.monotonic()

    def finalize(self, status: str) -> None:
        """Write everything to the files, and keep them open for a test."""
        self.flush()

    def close(self) -> None:
        """Write everything to the files and close them."""
        self.flush()
        self.experiment.close()


def truncate_logs(folder: Path, step: int, logged: dict[str, int] | None, untrusted: bool) -> None:
    """Remove from a run's logs everything after a checkpoint; call it while no logger is open.

    A killed run has logged steps after its last checkpoint, and repeats them when it is resumed.
    Damaged files are moved aside, and their intact records stay.

    Args:
        folder: the run directory.
        step: the step of the checkpoint.
        logged: the last step of each metric at the time of the checkpoint; None: `step`. The
            test's results and the means of a partial epoch have the same step, but came later.
        untrusted: limit the table, and all event files together, for a run from elsewhere.
    """
    truncate_metrics(folder / METRICS_FILE, step, logged, limited=untrusted)
    limits = _Limits()
    if untrusted:
        limits = _Limits(MAX_EVENTS, MAX_CHECKED_BYTES, MAX_RECORD_BYTES, MAX_FILE_BYTES)
    for path in sorted(folder.glob("events.out.tfevents.*")):
        records, is_intact = _read_events(path, limits)
        remaining = b"".join(record for record in records if _is_before(record, step, logged))
        if not is_intact:
            # TensorBoard reads every file with `tfevents` in its name.
            renamed = rename_damaged(path, path.name.replace("tfevents", "events"))
            remedy = f"renamed the file to {renamed.name}"
            say(f"{path} is damaged; {remedy}; {len(records)} intact records stay")
        if not is_intact or remaining != path.read_bytes():
            write_atomically(remaining, path)


# A record of an event file: its length (64 bits), a checksum of the length (32 bits), its data, and
# a checksum of the data (32 bits).
_HEADER, _FOOTER = 12, 4


@dataclass
class _Limits:
    """How many records and values, and how many bytes, may still be read over all event files.

    `record` and `file` are the maximum bytes of one record and of one file.
    """

    values: float = math.inf
    content: float = math.inf
    record: float = math.inf
    file: float = MAX_OWN_FILE_BYTES


def _read_events(path: Path, limits: _Limits) -> tuple[list[bytes], bool]:
    """Read the records before the first damaged one; return whether all are intact.

    An incomplete last record counts as intact: the run was killed while it wrote.
    """
    try:
        content = read_bounded(path, limits.file)
    except (OSError, UserError):  # a folder, a pipe, a link to nothing, no permission, too large
        return [], False
    records: list[bytes] = []
    position = 0
    while position + _HEADER <= len(content):
        length, checksum = struct.unpack_from("<QI", content, position)
        if masked_crc32c(content[position : position + 8]) != checksum:
            # Only zeros: the machine stopped.
            return records, content.count(0, position) == len(content) - position
        end = position + _HEADER + length + _FOOTER
        if end > len(content):
            break
        limits.values -= 1
        limits.content -= end - position
        if limits.values < 0 or limits.content < 0 or length > limits.record:
            return records, False
        data, (checksum,) = content[position:end], struct.unpack_from("<I", content, end - _FOOTER)
        if masked_crc32c(data[_HEADER:-_FOOTER]) != checksum:
            return records, False
        event = _parse_event(data)
        limits.values -= 0 if event is None else len(event.summary.value)
        records.append(data)
        position = end
    return records, True


# Scalars that do not pass through `RunLogger.log_metrics`.
_UNTRACKED_SCALARS = ("images_per_second",)
_VALIDATION_TAGS = ("mistakes/val", "confusion/val", "precision and recall, val/")
# What a run writes after training: a resumed run will write it again.
_TEST_TAGS = (
    *("_hparams_/", "final/", "test/"),
    *("mistakes/test", "confusion/test", "precision and recall, test/"),
)


def _parse_event(record: bytes) -> Event | None:
    """Return the event in a record; None if its content is not an event."""
    try:
        return Event.FromString(record[_HEADER:-_FOOTER])
    except DecodeError:
        return None


def _is_before(record: bytes, step: int, logged: dict[str, int] | None) -> bool:
    """Return whether a record was written before the checkpoint of a step."""
    event = _parse_event(record)
    if event is None or event.step > step:
        return False
    for value in event.summary.value:
        if value.tag.startswith(_TEST_TAGS):
            return False
        is_logged = value.HasField("simple_value") and value.tag not in _UNTRACKED_SCALARS
        # The images of a validation are written together with its metrics.
        is_validation = value.tag.startswith(_VALIDATION_TAGS)
        metric = "val/loss" if is_validation else value.tag if is_logged else None
        if logged is not None and metric is not None and event.step > logged.get(metric, -1):
            return False
    return True
