"""The runs whose training a server shows: read what is new in their files, within limits."""

import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Condition, Lock
from typing import Any, Literal, NamedTuple, get_args

from mnist_lightning.errors import UserError
from mnist_lightning.runs.metrics_csv import METRICS_FILE
from mnist_lightning.runs.metrics_follower import EpochMeans, MetricsFollower, StepLoss
from mnist_lightning.runs.run_directory import VERSION, Run
from mnist_lightning.runs.snapshots import (
    MAX_EPOCH,
    Snapshot,
    list_epochs,
    read_snapshot,
    snapshot_path,
)
from mnist_lightning.runs.summary_table import RunRow, read_row

State = Literal["starting", "running", "finished", "interrupted", "failed", "unknown"]
ACTIVE = ("starting", "running")
MAX_FOLLOWED = 16  # runs whose metrics are in memory
MAX_SNAPSHOTS = 100  # in a response
MAX_STEP_LOSSES = 500  # in a response
MAX_PAGES = 100
SECONDS_BETWEEN_REQUESTS = 3.0  # of a page, at most; it sends one every second


class Progress(NamedTuple):
    """What is new in a run.

    Attributes:
        row: its row in the table of runs.
        state: its state.
        max_epochs: the epochs to train; None without a limit, or if it is not known.
        done: the number of complete epochs; an epoch that a limit ended counts.
        step: the last logged step.
        last_epoch: the last epoch with metrics, also if it is not new; 0 before the first.
        last_snapshot: the epoch of the last snapshot, also if it is not new; -1 before the first.
        epochs: the metrics of the new epochs.
        step_losses: the losses of single steps after the last epoch that is not new.
        snapshots: the new snapshots; of many the first, the last and some between them.
        damaged: the epochs of the snapshots that could not be read.
        problem: why the metrics could not be read.
    """

    row: RunRow
    state: State
    max_epochs: int | None
    done: int
    step: int
    last_epoch: int
    last_snapshot: int
    epochs: list[EpochMeans]
    step_losses: list[StepLoss]
    snapshots: list[Snapshot]
    damaged: list[int]
    problem: str | None


class RunWatcher:
    """Reads the files of a run again and again, each time only what is new."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._lock = Lock()  # requests are handled in several threads
        self._metrics = MetricsFollower(run.folder / METRICS_FILE)
        self._config: tuple[tuple[int, int], int | None] | None = None

    def read(self, after: int, snapshots_after: int) -> Progress:
        """Read what is new after an epoch, and the snapshots after an epoch."""
        with self._lock:
            row = read_row(self.run)  # first: a finished run has written all other files
            problem = None
            try:
                self._metrics.update()
            except UserError as error:
                problem = str(error)
            metrics = self._metrics
            first_step = max(
                (each.step for each in metrics.epochs if each.epoch <= after), default=0
            )
            losses = [each for each in metrics.step_losses if each.step > first_step]
            folder = self.run.snapshots
            known = list_epochs(folder)
            wanted = _thinned([epoch for epoch in known if epoch > snapshots_after], MAX_SNAPSHOTS)
            found = {epoch: read_snapshot(folder, epoch) for epoch in wanted}
            missing = [epoch for epoch, each in found.items() if each is None]
            last_epoch = metrics.epochs[-1].epoch if metrics.epochs else 0
            last_snapshot = known[-1] if known else -1
            # Other loggers than the run's own write no `metrics.csv`.
            done = max(last_epoch, last_snapshot, min(row.epochs or 0, MAX_EPOCH))
            return Progress(
                row=row,
                state=self._state(row.state),
                max_epochs=self._max_epochs(),
                done=done,
                step=metrics.step,
                last_epoch=last_epoch,
                last_snapshot=last_snapshot,
                epochs=[each for each in metrics.epochs if each.epoch > after],
                step_losses=_thinned(losses, MAX_STEP_LOSSES),
                snapshots=[each for each in found.values() if each is not None],
                # The run itself may have removed one of them meanwhile.
                damaged=[each for each in missing if os.path.lexists(snapshot_path(folder, each))],
                problem=problem,
            )

    def _state(self, state: str) -> State:
        known: dict[str, State] = {each: each for each in get_args(State)}
        if state in known and state not in ("starting", "unknown"):
            return known[state]
        return "starting" if self.run.is_training() else "unknown"

    def _max_epochs(self) -> int | None:
        """Return the number of epochs in the configuration; it is read when it has changed."""
        try:
            status = self.run.config.stat()
        except OSError:
            return None
        version = (status.st_mtime_ns, status.st_size)
        if self._config is None or self._config[0] != version:
            self._config = version, _read_max_epochs(self.run)
        return self._config[1]


def _read_max_epochs(run: Run) -> int | None:
    try:
        trainer = run.read_config().get("trainer")
    except UserError:
        return None
    value = trainer.get("max_epochs") if isinstance(trainer, dict) else None
    return value if type(value) is int and 0 < value <= MAX_EPOCH else None


def _thinned(items: Sequence[Any], limit: int) -> list[Any]:
    """Return at most `limit` items at equal distances, among them the first and the last."""
    if len(items) <= limit:
        return list(items)
    last = len(items) - 1
    return [items[round(place * last / (limit - 1))] for place in range(limit)]


class WatchedRuns:
    """The runs that a server can show, by name.

    Args:
        run: the default run; it may be replaced by the next run of the same command.
        root: the directory of the other runs.

    Attributes:
        expects_more: whether the command that trains the default run may still change it, or
            train another one.
    """

    def __init__(self, run: Run, root: Path, expects_more: bool = False) -> None:
        self.run = run
        self.expects_more = expects_more
        self._root = root
        self._watchers: OrderedDict[Path, RunWatcher] = OrderedDict()
        self._pages: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        self._changed = Condition()

    def find(self, name: str | None) -> RunWatcher | None:
        """Return the watcher of a run; of the default run without a name; None if not found."""
        run = self.run
        if name is not None and name != run.folder.name:
            run = Run(self._root / name)
            if VERSION.fullmatch(name) is None or not run.folder.is_dir():
                return None
        with self._changed:
            watcher = self._watchers.pop(run.folder, None) or RunWatcher(run)
            self._watchers[run.folder] = watcher
            while len(self._watchers) > MAX_FOLLOWED:
                self._watchers.popitem(last=False)
        return watcher

    def note_page(self, page: str, has_final_state: bool) -> None:
        """Remember that a page has got the state of a run, and whether this state is final."""
        with self._changed:
            self._pages.pop(page, None)
            self._pages[page] = time.monotonic(), has_final_state
            while len(self._pages) > MAX_PAGES:
                self._pages.popitem(last=False)
            self._changed.notify_all()

    def wait_for_pages(self, seconds: float, expects_page: bool) -> None:
        """Wait until each page that is open has the final state, or for so many seconds.

        `expects_page`: whether a page is being opened, also if it has not sent a request yet.
        """

        def all_have_final_state() -> bool:
            latest = time.monotonic() - SECONDS_BETWEEN_REQUESTS
            final = all(final or since < latest for since, final in self._pages.values())
            return final and (len(self._pages) > 0 or not expects_page)

        with self._changed:
            self._changed.wait_for(all_have_final_state, seconds)
