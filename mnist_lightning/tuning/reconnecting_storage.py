"""Optuna's storage in a database server: wait while the server is not reachable."""

import time
from collections.abc import Callable, Sequence
from threading import Event, Lock
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext

from mnist_lightning.errors import UserError
from mnist_lightning.text import plural
from mnist_lightning.tuning.database_url import reason

MAX_WAIT_SECONDS = 600.0
RETRY_SECONDS = 1.0
FIRST_RETRY_SECONDS = 0.1  # a single connection may end, such as one that was idle for long


class ConnectionLostError(UserError):
    """The server is not reachable, or the connection broke during a call.

    If the call was to write, it is unknown whether the server has written.
    """


def _raise_connection_lost(context: ExceptionContext) -> None:
    """Raise `ConnectionLostError` for an error of the connection.

    Optuna handles SQLAlchemy's errors in several ways. For example, it repeats the creation of a
    trial, which may create two. It passes on an exception of another class.
    """
    if context.is_pre_ping:  # the pool opens a new connection
        return
    if context.is_disconnect or context.connection is None:
        raise ConnectionLostError(reason(context.original_exception))


def _repeated(name: str) -> Any:
    """Return the method of a storage that repeats a call until the server has answered."""

    def method(self: "ReconnectingStorage", *args: Any, **kwargs: Any) -> Any:
        return self.repeat(lambda: getattr(self.storage, name)(*args, **kwargs))

    return method


class ReconnectingStorage(BaseStorage):
    """Passes each call to a storage; waits and repeats the call if the connection is lost.

    Args:
        storage: the storage in a database server.
        shown: the name of the database in messages.
        stop: set to end the sweep; then it does not wait.
        report: called with a line at the start and at the end of each wait.
        max_wait: how long to wait, in seconds.
    """

    def __init__(
        self,
        storage: RDBStorage,
        shown: str,
        stop: Event,
        report: Callable[[str], None],
        max_wait: float = MAX_WAIT_SECONDS,
    ) -> None:
        event.listen(storage.engine, "handle_error", _raise_connection_lost)
        self.storage = get_storage(storage)  # adds Optuna's cache, as for a URL
        self.shown = shown
        self.stop = stop
        self.report = report
        self.max_wait = max_wait
        self._lost_at: float | None = None
        self._is_reported = False
        self._lock = Lock()

    # Reading, and writing that has the same effect if it is repeated. A parameter is stored once:
    # Optuna ignores an error because it exists.
    get_all_studies = _repeated("get_all_studies")
    get_all_trials = _repeated("get_all_trials")
    get_study_directions = _repeated("get_study_directions")
    get_study_id_from_name = _repeated("get_study_id_from_name")
    get_study_name_from_id = _repeated("get_study_name_from_id")
    get_study_system_attrs = _repeated("get_study_system_attrs")
    get_study_user_attrs = _repeated("get_study_user_attrs")
    get_trial = _repeated("get_trial")
    get_trial_id_from_study_id_trial_number = _repeated("get_trial_id_from_study_id_trial_number")
    set_study_system_attr = _repeated("set_study_system_attr")
    set_study_user_attr = _repeated("set_study_user_attr")
    set_trial_intermediate_value = _repeated("set_trial_intermediate_value")
    set_trial_param = _repeated("set_trial_param")
    set_trial_system_attr = _repeated("set_trial_system_attr")
    set_trial_user_attr = _repeated("set_trial_user_attr")
    # A second call reports that the study exists, or does not; the caller handles both.
    create_new_study = _repeated("create_new_study")
    delete_study = _repeated("delete_study")

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial.

        Raises:
            ConnectionLostError: it is unknown whether the trial exists. The caller has to look for
                it, because a second call would create another one.
        """
        return self.storage.create_new_trial(study_id, template_trial)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Set the state and the values of a trial; return whether it was not already running.

        A trial can be finished only once. If the connection is lost, the first call may have
        finished it; then the second one must not fail.
        """
        tries = 0

        def write() -> bool:
            nonlocal tries
            tries += 1
            try:
                return self.storage.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                if tries == 1 or self.get_trial(trial_id).state != state:
                    raise
                return True

        return bool(self.repeat(write))

    def repeat(self, call: Callable[[], Any]) -> Any:
        """Return the result of a call, which is repeated while the connection is lost.

        Raises:
            ConnectionLostError: the sweep ends, or the server was not reachable for `max_wait`.
        """
        while True:
            try:
                result = call()
            except ConnectionLostError as error:
                self._wait(error)
            else:
                self._end_outage()
                return result

    def _wait(self, error: ConnectionLostError) -> None:
        """Wait until the next try; report an outage that one try does not end."""
        with self._lock:
            now = time.monotonic()
            if self._lost_at is None:
                self._lost_at = now
            elif not self._is_reported:
                self._is_reported = True
                problem = f"The database {self.shown} is not reachable: {error}"
                limit = plural(round(self.max_wait / 60), "minute")
                self.report(f"{problem}. Waiting for up to {limit}; running trials continue")
            waited = now - self._lost_at
            delay = RETRY_SECONDS if self._is_reported else FIRST_RETRY_SECONDS
        fix = "Start it, then repeat the command to continue"
        if waited >= self.max_wait:
            problem = f"The database {self.shown} was not reachable for {waited:.0f} s: {error}"
            raise ConnectionLostError(f"{problem}. {fix}") from None
        if self.stop.wait(delay):
            problem = f"The sweep ended while the database {self.shown} was not reachable: {error}"
            raise ConnectionLostError(f"{problem}. {fix}") from None

    def _end_outage(self) -> None:
        with self._lock:
            if self._lost_at is not None and self._is_reported:
                waited = time.monotonic() - self._lost_at
                self.report(f"The database {self.shown} is reachable again after {waited:.0f} s")
            self._lost_at = None
            self._is_reported = False
