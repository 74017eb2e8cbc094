"""Assign the trials of a sweep to its workers: each trial, and each point of a grid, once."""

from pathlib import Path
from uuid import uuid4

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState, create_trial

from mnist_lightning.files import read_bounded, write_atomically
from mnist_lightning.tuning.search_space import SearchSpace, point_key

DUPLICATE = "another trial has the same values"


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
            if (trial := self._next_unfinished()) is not None:
                return trial
            if self.space is None or self.space.points is None:
                return self._next_sampled()
            while self._add_point(self.space):
                if (trial := self._next_unfinished()) is not None:
                    return trial
            return None

    def _next_unfinished(self) -> optuna.Trial | None:
        """Return a trial of this sweep that no worker runs."""
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if frozen.user_attrs.get("owner") != self.owner or not self._reserve(frozen.number):
                continue
            # Optuna itself creates the object of an existing trial in this way.
            trial = optuna.Trial(self.study, frozen._trial_id)
            if not self._is_duplicate(frozen):
                return trial
            trial.set_user_attr("error", DUPLICATE)
            self.study.tell(trial, state=TrialState.FAIL)
            self.release(trial)
        return None

    def _next_sampled(self) -> optuna.Trial | None:
        """Create a trial whose values the sampler will choose, up to the total number."""
        if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            if len(self.study.get_trials(deepcopy=False)) >= self.count:
                return None
            # Set the owner at once: a trial without an owner would be lost after a kill here.
            self.study.enqueue_trial({}, user_attrs={"owner": self.owner})
        trial = self.study.ask()
        self._reserve(trial.number)
        if trial.user_attrs.get("owner") != self.owner:  # another sweep only enqueued it
            trial.set_user_attr("owner", self.owner)
        return trial

    def _add_point(self, space: SearchSpace) -> bool:
        """Create a trial for the next point of the grid; return whether one was left."""
        known: dict[str, set[int]] = {}
        for frozen in self.study.get_trials(deepcopy=False):
            known.setdefault(point_key(frozen.params), set()).add(frozen.number)
        points = {point_key(each): each for each in space.points or ()}
        new = [key for key in points if key not in known]
        failed = [key for key in points if known.get(key, set()) <= self._failed_before]
        if not (new or failed):
            return False
        key = (new or failed)[0]
        # Optuna's GridSampler would not repeat failed points, and parallel workers may draw the
        # same point. With its owner and its values from the start, no kill can lose the trial.
        distributions = {name: allowed.distribution for name, allowed in space.ranges.items()}
        self.study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=dict(points[key]),
                distributions=distributions,
                user_attrs={"owner": self.owner},
            )
        )
        return True

    def _is_duplicate(self, trial: FrozenTrial) -> bool:
        """Return whether a sweep on another machine added the same point a moment earlier."""
        if self.space is None or self.space.points is None:
            return False
        return any(
            other.state != TrialState.FAIL and point_key(other.params) == point_key(trial.params)
            for other in self.study.get_trials(deepcopy=False)[: trial.number]
        )

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


def owner_id(folder: Path) -> str:
    """Return the globally unique identifier of a sweep's folder; create it if needed."""
    file = folder / ".owner"
    with FileLock(folder / ".queue.lock"):
        if not file.exists():
            write_atomically(uuid4().hex.encode(), file)
        return read_bounded(file, 1_000).decode(errors="replace")
