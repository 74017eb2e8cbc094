"""Run a trial of a sweep in a separate process: monitor, prune or continue it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import optuna
import psutil
from optuna.trial import FrozenTrial, TrialState

from mnist_lightning.errors import UserError
from mnist_lightning.files import read_bounded, remove, write_atomically
from mnist_lightning.runs.metrics_csv import METRICS_FILE, read_metrics
from mnist_lightning.runs.run_directory import VERSION, Run, create_next
from mnist_lightning.tuning.search_space import SearchSpace, add_options
from mnist_lightning.tuning.trial_queue import owner_id

POLL_SECONDS = 0.3
LOG_TAIL_BYTES = 10_000
MARK_FILE = ".trial"  # in a run directory: the sweep and the trial that it belongs to
# Exit statuses of an interrupted process: the sweep continues its trial later.
INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)


class Plan(NamedTuple):
    """The settings of a sweep and of all its trials.

    Attributes:
        space: the search space.
        options: the options of `fit` for each trial.
        root: the folder of the runs.
        folder: the sweep's folder.
        threads: the number of threads of each trial.
        trials: the total number of trials.
        workers: the number of trials to run in parallel.
    """

    space: SearchSpace
    options: Sequence[str]
    root: Path
    folder: Path
    threads: int
    trials: int
    workers: int


class TrialRunner:
    """Runs one trial after another.

    Args:
        study: the study of the trials.
        plan: the settings of the trials.
        stop: set to end the sweep; the same command continues its trials.
    """

    def __init__(self, study: optuna.Study, plan: Plan, stop: Event) -> None:
        self.study = study
        self.plan = plan
        self.stop = stop
        self._reported: dict[int, int] = {}  # the last reported epoch of each trial

    def run(self, trial: optuna.Trial) -> None:
        """Start or continue a trial, until it ends or the sweep is stopped."""
        run = self._claim_run(trial)
        try:
            values = self.plan.space.suggest(trial)
        except ValueError:  # the database has an invalid value for the trial
            values = {}
        if not self.plan.space.contains(values):
            self._record_failure(trial, "its parameters are outside the space")
            return
        with (self.plan.folder / f"trial_{trial.number}.log").open("ab") as log:
            pruned, status = self._train(trial, run, values, log.fileno())
        if pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        elif self.stop.is_set() or status in INTERRUPTED:
            self.stop.set()
        elif status == 0 and (accuracy := run.summary().get("val/accuracy")) is not None:
            self.study.tell(trial, accuracy)
        elif status == 0:
            self._record_failure(trial, "no val/accuracy")
        else:
            reason = f"status {status}" if status > 0 else f"killed, {signal.Signals(-status).name}"
            self._record_failure(trial, f"{reason}: {_last_line(Path(log.name))}")

    def _claim_run(self, trial: optuna.Trial) -> Run:
        """Return the run that this sweep claimed for the trial, or claim one."""
        claimed = claimed_run(self.plan, trial)
        if claimed is not None:
            return Run(claimed.folder.resolve())
        run = Run(create_next(self.plan.root).folder.resolve())
        write_atomically(_mark(self.plan, trial).encode(), run.folder / MARK_FILE)
        trial.set_user_attr("run", str(run.folder))
        return run

    def _train(
        self, trial: optuna.Trial, run: Run, values: dict[str, Any], log: int
    ) -> tuple[bool, int]:
        """Train in a process; return whether it was pruned, and its exit status."""
        # Wait for a process that a killed sweep left running.
        while run.is_locked() or processes_of(run):
            if self._should_prune(trial, run):
                for process in processes_of(run):
                    with suppress(psutil.NoSuchProcess):
                        process.terminate()
                return True, 0
            if self.stop.wait(POLL_SECONDS):
                return False, 0
        if run.summary().get("state") == "finished":
            self._should_prune(trial, run)  # report the epochs since the sweep was killed
            return False, 0
        if any(run.checkpoints.glob("last*.ckpt")):
            trust = ["--trust"] if "--trust" in self.plan.options else []
            command = ["resume", str(run.folder), *trust]
        else:
            _clear_folder(run.folder)
            options = add_options(self.plan.options, values)
            command = ["fit", *options, "--run_dir", str(run.folder)]
        command = [sys.executable, "-m", "mnist_lightning", *command]
        environment = {"OMP_NUM_THREADS": str(self.plan.threads)} | os.environ
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )
        try:
            pruned = self._monitor(process, trial, run)
        finally:
            if process.poll() is None:  # an error, such as a database that is not reachable
                process.terminate()
                process.wait()
        return pruned, process.returncode

    def _monitor(self, process: subprocess.Popen[bytes], trial: optuna.Trial, run: Run) -> bool:
        """Report the epochs of a process until it ends; return whether it was pruned."""
        pruned = False
        while process.poll() is None:
            pruned = pruned or self._should_prune(trial, run)
            if pruned or self.stop.is_set():
                process.terminate()
                process.wait()
            else:
                time.sleep(POLL_SECONDS)
        self._should_prune(trial, run)  # report also the last epochs
        return pruned

    def _should_prune(self, trial: optuna.Trial, run: Run) -> bool:
        """Report the epochs validated since the last call; return the pruner's decision."""
        reported = self._reported.get(trial.number)
        if reported is None:
            reported = max(
                self.study.get_trials(deepcopy=False)[trial.number].intermediate_values, default=0
            )
        last = reported
        for row in read_metrics(run.folder / METRICS_FILE):
            if row.get("val/accuracy") and row.get("epoch") and int(row["epoch"]) > reported:
                last = int(row["epoch"])
                trial.report(float(row["val/accuracy"]), last)
        self._reported[trial.number] = last
        # Do not prune after the last epoch.
        return last > reported and last != _max_epochs(run) and trial.should_prune()

    def _record_failure(self, trial: optuna.Trial, reason: str) -> None:
        trial.set_user_attr("error", reason)
        self.study.tell(trial, state=TrialState.FAIL)


def claimed_run(plan: Plan, trial: optuna.Trial | FrozenTrial) -> Run | None:
    """Return the run that this sweep claimed for a trial, if any.

    The database is not trusted: only the name of the folder is used. A run without the trial's
    mark does not belong to the trial.
    """
    name = Path(str(trial.user_attrs.get("run", ""))).name
    folder = plan.root / name
    marked = not folder.is_symlink() and _read_mark(folder) == _mark(plan, trial)
    return Run(folder) if VERSION.fullmatch(name) and marked else None


def _mark(plan: Plan, trial: optuna.Trial | FrozenTrial) -> str:
    return f"{owner_id(plan.folder)} {trial.number}"


def _max_epochs(run: Run) -> Any:
    """Return `max_epochs` of a run's configuration."""
    trainer = run.read_config().get("trainer")
    return trainer.get("max_epochs") if isinstance(trainer, dict) else None


def processes_of(run: Run) -> list[psutil.Process]:
    """Return the processes that train a run, also those that have not locked it yet."""
    names = {"mnist_lightning", str(run.folder)}  # not those of TensorBoard, for example
    processes = psutil.process_iter(["cmdline"])
    return [process for process in processes if names.issubset(process.info["cmdline"] or ())]


def _clear_folder(folder: Path) -> None:
    """Delete the content of a folder except its mark, and keep the folder reserved."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.name != MARK_FILE:
            remove(path)


def _read_mark(folder: Path) -> str | None:
    """Return the sweep and the trial that a run belongs to, if any."""
    try:
        return read_bounded(folder / MARK_FILE, 1_000).decode(errors="replace")
    except (OSError, UserError):
        return None


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("mnist-lightning: error: ") if lines else "no output"
