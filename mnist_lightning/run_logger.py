"""A run's figures in its own folder: TensorBoard events and `metrics.csv`, each written once."""

import csv
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from tensorboard.compat.proto.event_pb2 import Event
from torch.utils.tensorboard import SummaryWriter

from mnist_lightning.files import write_atomically

METRICS_FILE = "metrics.csv"
FLUSH_SECONDS = 5.0


def as_float(value: Any) -> float:
    """A metric as a number of no more digits than the float32 it was computed in."""
    return float(f"{float(value):.7g}")


class MetricsFile:
    """`metrics.csv`: a row a step, a column a metric; columns are added as metrics appear."""

    def __init__(self, path: Path, dataset: str) -> None:
        self.path = path
        self.dataset = dataset
        self.columns = ["step", "dataset"]
        self._pending: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="") as file:
                self.columns = next(csv.reader(file), self.columns)

    def add(self, metrics: dict[str, float], step: int) -> None:
        """Add values to the row of `step`."""
        if not self._pending or self._pending[-1]["step"] != step:
            self._pending.append({"step": step, "dataset": self.dataset})
        self._pending[-1].update({name: f"{value:.7g}" for name, value in metrics.items()})

    def flush(self) -> None:
        """Append the rows that are not in the file yet."""
        if not self._pending:
            return
        new = [name for row in self._pending for name in row if name not in self.columns]
        if new or not self.path.exists():
            rows = read_metrics(self.path)
            self.columns += dict.fromkeys(new)
            write_rows(self.path, self.columns, rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerows(self._pending)
        self._pending = []


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Read the rows of a `metrics.csv`; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, columns: list[str], rows: list[dict[str, str]]) -> None:
    """Replace a CSV file by these rows, in one step."""
    lines = [columns, *([row.get(name, "") for name in columns] for row in rows)]
    write_atomically("".join(",".join(line) + "\n" for line in lines).encode(), path)


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
        self.experiment.add_text("dataset", dataset, 0)
        self._metrics_file = MetricsFile(folder / METRICS_FILE, dataset)
        self._last_step: dict[str, int] = {}
        self._flushed_at = time.monotonic()

    @property
    def name(self) -> str:
        """The folder that the runs are in."""
        return self.folder.parent.name

    @property
    def version(self) -> str:
        """The run's own folder name."""
        return self.folder.name

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
    path = folder / METRICS_FILE
    rows = read_metrics(path)
    kept = [row for row in rows if (row["step"] or "").isdigit() and int(row["step"]) <= step]
    if len(kept) < len(rows):
        write_rows(path, list(rows[0]), kept)
    for events in folder.glob("events.out.tfevents.*"):
        content = events.read_bytes()
        records = b"".join(record for record in _records(content) if _step(record) <= step)
        if records != content:
            write_atomically(records, events)


# A record of an event file: its length (64 bits), a checksum of the length (32), its data, and a
# checksum of the data (32).
_HEADER, _FOOTER = 12, 4


def _records(content: bytes) -> Iterator[bytes]:
    position = 0
    while position + _HEADER <= len(content):
        (length,) = struct.unpack_from("<Q", content, position)
        end = position + _HEADER + length + _FOOTER
        if end > len(content):
            return  # cut off in the middle when the run was killed
        yield content[position:end]
        position = end


def _step(record: bytes) -> int:
    return int(Event.FromString(record[_HEADER:-_FOOTER]).step)
