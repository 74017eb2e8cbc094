"""Assign the trials of a sweep to its workers: each trial, and each point of a grid, once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from mnist_lightning.files import read_bounded, write_atomically
from mnist_lightning.tuning.reconnecting_storage import ConnectionLostError
from mnist_lightning.tuning.search_space import SearchSpace, point_key

# Why a trial is not started. Machines that share a database may add a trial at the same moment.
DUPLICATE = "another trial has the same values"
SURPLUS = "another sweep added the last trial"


class TrialQueue:
    """Assigns each trial to one worker: first those that a killed sweep left, then new ones.

    Args:
        study: the study of the trials.
        count: the total number of trials, if the space has no list of points.
        folder: the sweep's folder; a sweep continues only its own trials.
        space: the search space; if it has a list of points, each is tried once, and those that
            failed in an earlier sweep are tried again at the end.
    """

    def __init__(
        self, study: optuna.Study, count: int, folder: Path, space: SearchSpace | None = None
    ) -> None:
        self.study = study
        self.count = count
        self.folder = folder
        self.space = space
        self.owner = owner_id(folder)
        self.locks: dict[int, FileLock] = {}
        self._failed_before: set[int] = set()
        if space is not None and space.points is not None:
            failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
            self._failed_before = {trial.number for trial in failed}

    def next(self) -> optuna.Trial | None:
        """Return the next trial to run; None if there is none left."""
        with FileLock(self.folder / ".queue.lock"):
            while True:
                trial = self._next_unfinished() or self._next_waiting()
                if trial is not None:
                    return trial
                try:
                    if not self._add_trial():
                        return None
                except ConnectionLostError:
                    # If the trial was stored, it is now an unfinished one of this sweep.
                    continue

    def _next_unfinished(self) -> optuna.Trial | None:
        """Return a trial of this sweep that no worker runs."""
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if frozen.user_attrs.get("owner") != self.owner or not self._reserve(frozen.number):
                continue
            # Optuna itself creates the object of an existing trial in this way.
            trial = optuna.Trial(self.study, frozen._trial_id)
            reason = self._reason_to_discard(frozen)
            if reason is None:
                return trial
            trial.set_user_attr("error", reason)
            self.study.tell(trial, state=TrialState.FAIL)
            self.release(trial)
        return None

    def _next_waiting(self) -> optuna.Trial | None:
        """Return a trial that somebody enqueued with Optuna's functions for any sweep or this one.

        Only such a trial can be lost: by a kill between the two writes.
        """
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            if frozen.user_attrs.get("owner", self.owner) != self.owner:
                continue
            trial = optuna.Trial(self.study, frozen._trial_id)
            try:
                is_first = trial.storage.set_trial_state_values(
                    frozen._trial_id, TrialState.RUNNING
                )
            except UpdateFinishedTrialError:
                continue
            if is_first and self._reserve(frozen.number):
                trial.set_user_attr("owner", self.owner)
                return trial
        return None

    def _add_trial(self) -> bool:
        """Create a trial of this sweep; return whether one was missing.

        The trial has its owner, its state and its point of a grid from the start: in whichever
        moment a sweep is killed or loses the connection, its trial is found again.
        """
        trials = self.study.get_trials(deepcopy=False)
        values: Mapping[str, Any] = {}
        distributions: dict[str, BaseDistribution] = {}
        if self.space is None or self.space.points is None:  # the sampler will choose values
            if sum(not is_discarded(trial) for trial in trials) >= self.count:
                return False
        else:
            points = self._missing_points(trials)
            if not points:
                return False
            values = points[0]
            ranges = self.space.ranges.items()
            distributions = {name: allowed.distribution for name, allowed in ranges}
        self.study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=dict(values),
                distributions=distributions,
                user_attrs={"owner": self.owner},
            )
        )
        return True

    def _missing_points(self, trials: Sequence[FrozenTrial]) -> list[Mapping[str, Any]]:
        """Return the points of the grid without a trial, then those that failed before.

        Optuna's GridSampler would not repeat failed points, and parallel workers may draw the same
        point.
        """
        known: dict[str, set[int]] = {}
        for trial in trials:
            known.setdefault(point_key(trial.params), set()).add(trial.number)
        points = (self.space and self.space.points) or ()
        new = [point for point in points if point_key(point) not in known]
        failed = [
            point for point in points if known.get(point_key(point), set()) <= self._failed_before
        ]
        return [*new, *failed]

    def _reason_to_discard(self, trial: FrozenTrial) -> str | None:
        """Return why a trial must not be started, if a sweep on another machine was faster."""
        earlier = self.study.get_trials(deepcopy=False)[: trial.number]
        if self.space is not None and self.space.points is not None:
            point = point_key(trial.params)
            same = (other for other in earlier if point_key(other.params) == point)
            is_tried = any(other.state != TrialState.FAIL for other in same)
            return DUPLICATE if is_tried else None
        counted = sum(not is_discarded(other) for other in earlier)
        is_started = "run" in trial.user_attrs
        return SURPLUS if counted >= self.count and not is_started else None

    def _reserve(self, number: int) -> bool:
        """Reserve a trial, unless another worker runs it or has finished it."""
        lock = FileLock(self.folder / f".trial_{number}.lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            return False
        if self.study.get_trials(deepcopy=False)[number].state.is_finished():
            lock.release()
            return False
        self.locks[number] = lock
        return True

    def release(self, trial: optuna.Trial) -> None:
        """Release a trial, so that other workers may run it."""
        self.locks.pop(trial.number).release()


def is_discarded(trial: FrozenTrial) -> bool:
    """Return whether a trial was ended before it started, because another one replaces it."""
    return trial.user_attrs.get("error") in (DUPLICATE, SURPLUS)


def owner_id(folder: Path) -> str:
    """Return the globally unique identifier of a sweep's folder; create it if needed."""
    file = folder / ".owner"
    with FileLock(folder / ".queue.lock"):
        if not file.exists():
            write_atomically(uuid4().hex.encode(), file)
        return read_bounded(file, 1_000).decode(errors="replace")
