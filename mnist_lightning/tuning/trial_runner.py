"""A trial of a sweep: a run in a process of its own, watched, pruned, gone on with."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple
from uuid import uuid4

import optuna
import psutil
from filelock import FileLock, Timeout
from optuna.trial import TrialState

from mnist_lightning.errors import UserError
from mnist_lightning.files import read_bounded, write_atomically
from mnist_lightning.runs import run_directory
from mnist_lightning.runs.metrics_csv import METRICS_FILE, read_metrics
from mnist_lightning.runs.run_directory import VERSION, Run
from mnist_lightning.tuning.search_space import Space, as_options

POLL_SECONDS = 0.3
TAIL_BYTES = 10_000  # of a log
MARK = ".trial"  # the file in a run that says which sweep and trial it belongs to
# How a process ends that was told to, not by itself: the sweep goes on with it another time.
TOLD_TO_END = (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)


class Plan(NamedTuple):
    """What the trials of a sweep have in common.

    Attributes:
        space: what they choose from.
        options: of `fit`, for each of them.
        root: where their runs are.
        folder: the sweep's own.
        threads: how many each may use.
        owner: the name of the sweep's folder, see `owner_of`.
    """

    space: Space
    options: Sequence[str]
    root: Path
    folder: Path
    threads: int
    owner: str


class Worker:
    """Works on one trial after another.

    Args:
        study: whose trials.
        plan: how they are made.
        stop: set when the sweep is to end; what is being worked on is gone on with another time.
    """

    def __init__(self, study: optuna.Study, plan: Plan, stop: Event) -> None:
        self.study = study
        self.plan = plan
        self.stop = stop
        self._reported: dict[int, int] = {}  # up to which epoch, by trial

    def work_on(self, trial: optuna.Trial) -> None:
        """Bring a trial to its end, wherever it stands, unless the sweep ends before."""
        run = self._run_of(trial)
        try:
            values = self.plan.space.suggest(trial)
        except ValueError:  # it is no choice that a database fixes
            values = {}
        if not self.plan.space.contains(values):
            self._tell_failure(trial, "its parameters are outside the space")
            return
        options = as_options(values)
        with (self.plan.folder / f"trial_{trial.number}.log").open("ab") as log:
            pruned, status = self._train(trial, run, options, log.fileno())
        if pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        elif self.stop.is_set() or status in TOLD_TO_END:
            self.stop.set()
        elif status == 0:
            self._tell_value(trial, run)
        else:
            how = f"status {status}" if status > 0 else f"killed, {signal.Signals(-status).name}"
            self._tell_failure(trial, f"{how}: {_last_line(Path(log.name))}")

    def _run_of(self, trial: optuna.Trial) -> Run:
        """Return the run that this sweep claimed for the trial, or claim one.

        Of what the database says only the name counts. A run without the trial's mark was made by
        somebody else, and is not touched.
        """
        name = Path(str(trial.user_attrs.get("run", ""))).name
        folder = self.plan.root / name
        mark = f"{self.plan.owner} {trial.number}"
        if VERSION.fullmatch(name) and not folder.is_symlink() and _mark_of(folder) == mark:
            return Run(folder.resolve())
        run = Run(run_directory.claim(self.plan.root).folder.resolve())
        write_atomically(mark.encode(), run.folder / MARK)
        trial.set_user_attr("run", str(run.folder))
        return run

    def _train(
        self, trial: optuna.Trial, run: Run, options: list[str], log: int
    ) -> tuple[bool, int]:
        """Train in a process; return whether it was pruned, and with which status it ended."""
        # By a process that outlived the sweep that began it.
        while _is_being_trained(run) or _processes_of(run):
            if self._is_to_be_pruned(trial, run):
                for process in _processes_of(run):
                    with suppress(psutil.NoSuchProcess):
                        process.terminate()
                return True, 0
            if self.stop.wait(POLL_SECONDS):
                return False, 0
        if run.summary().get("state") == "finished":
            return False, 0
        if any(run.checkpoints.glob("last*.ckpt")):
            trusted = ["--trust"] if "--trust" in self.plan.options else []
            command = ["resume", str(run.folder), *trusted]
        else:
            _empty(run.folder)
            command = ["fit", *self.plan.options, *options, "--into", str(run.folder)]
        process = subprocess.Popen(
            [sys.executable, "-m", "mnist_lightning", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"OMP_NUM_THREADS": str(self.plan.threads)} | os.environ,
        )
        pruned = False
        while process.poll() is None:
            pruned = pruned or self._is_to_be_pruned(trial, run)
            if pruned or self.stop.is_set():
                process.terminate()
                process.wait()
            else:
                time.sleep(POLL_SECONDS)
        self._is_to_be_pruned(trial, run)  # its last epochs are reported too
        return pruned, process.returncode

    def _is_to_be_pruned(self, trial: optuna.Trial, run: Run) -> bool:
        """Report the epochs that were validated since the last time; tell what the pruner says."""
        before = self._reported.get(trial.number)
        if before is None:
            before = max(self.study.trials[trial.number].intermediate_values, default=0)
        last = before
        for row in read_metrics(run.folder / METRICS_FILE):
            if row.get("val/accuracy") and row.get("epoch") and int(row["epoch"]) > before:
                last = int(row["epoch"])
                trial.report(float(row["val/accuracy"]), last)
        self._reported[trial.number] = last
        # One that is at its end anyway comes to it.
        return last > before and last != _length(run) and trial.should_prune()

    def _tell_value(self, trial: optuna.Trial, run: Run) -> None:
        accuracy = run.summary().get("val/accuracy")
        if isinstance(accuracy, float):
            self.study.tell(trial, accuracy)
        else:
            self._tell_failure(trial, "no val/accuracy")

    def _tell_failure(self, trial: optuna.Trial, reason: str) -> None:
        trial.set_user_attr("error", reason)
        self.study.tell(trial, state=TrialState.FAIL)


def _length(run: Run) -> Any:
    """How many epochs a run is to have, as its configuration says."""
    trainer = run.read_config().get("trainer")
    return trainer.get("max_epochs") if isinstance(trainer, dict) else None


def _is_being_trained(run: Run) -> bool:
    if not run.folder.is_dir():
        return False
    try:
        with run.lock(patience=0):
            return False
    except UserError:
        return True


def _processes_of(run: Run) -> list[psutil.Process]:
    """The processes that train in a run, or are about to, and have not locked it yet."""
    folder = str(run.folder)
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if folder in (process.info["cmdline"] or ())]


def _empty(folder: Path) -> None:
    """Delete what is in a folder, but its mark; another trial would take the folder's number."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.name == MARK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _mark_of(folder: Path) -> str | None:
    """Tell which sweep and trial a run belongs to; None if it is no sweep's."""
    try:
        return read_bounded(folder / MARK, 1_000).decode(errors="replace")
    except (OSError, UserError):
        return None


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("mnist-lightning: error: ") if lines else "it said nothing"


class Desk:
    """Hands out trials: those left by a sweep that was killed, then new ones, each once.

    Args:
        study: whose trials.
        count: how many there are to be in all.
        folder: the sweep's. What a sweep in another one left is that one's to go on with.
    """

    def __init__(self, study: optuna.Study, count: int, folder: Path) -> None:
        self.study = study
        self.count = count
        self.folder = folder
        self.owner = owner_of(folder)
        self.held: dict[int, FileLock] = {}

    def next(self) -> optuna.Trial | None:
        """The next trial to work on; None where there is none left."""
        with FileLock(self.folder / ".desk.lock"):
            for left in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if left.user_attrs.get("owner") == self.owner and self._hold(left.number):
                    # Optuna's own way to an object for a trial that exists.
                    return optuna.Trial(self.study, left._trial_id)
            if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                if len(self.study.get_trials(deepcopy=False)) >= self.count:
                    return None
                # Owned from its first moment: nobody's it would be lost if this were killed here.
                self.study.enqueue_trial({}, user_attrs={"owner": self.owner})
            trial = self.study.ask()
            self._hold(trial.number)
            if trial.user_attrs.get("owner") != self.owner:  # somebody else's who came no further
                trial.set_user_attr("owner", self.owner)
            return trial

    def _hold(self, number: int) -> bool:
        """Take a trial, unless a worker has it, or has brought it to its end by now."""
        lock = FileLock(self.folder / f".trial_{number}.lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            return False
        if self.study.get_trials(deepcopy=False)[number].state.is_finished():
            lock.release()
            return False
        self.held[number] = lock
        return True

    def give_back(self, trial: optuna.Trial) -> None:
        """Let go of a trial."""
        self.held.pop(trial.number).release()


def owner_of(folder: Path) -> str:
    """The name of a sweep's folder, by which no other one anywhere goes."""
    file = folder / ".owner"
    with FileLock(folder / ".desk.lock"):
        if not file.exists():
            write_atomically(uuid4().hex.encode(), file)
        return read_bounded(file, 1_000).decode(errors="replace")
