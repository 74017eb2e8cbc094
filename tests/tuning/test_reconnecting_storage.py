"""A lost connection: each call is repeated, and nothing is written twice."""

from pathlib import Path
from threading import Event
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from mnist_lightning import UserError
from mnist_lightning.tuning.reconnecting_storage import ConnectionLostError, ReconnectingStorage
from mnist_lightning.tuning.samplers import SeededSampler
from mnist_lightning.tuning.search_space import Range, SearchSpace
from mnist_lightning.tuning.trial_queue import TrialQueue

SPACE = SearchSpace({"a": Range("uniform", (0.0, 1.0)), "b": Range("int", (1, 9))})


class BreakingStorage:
    """Loses the connection in every second call of a method, before or after it was executed."""

    def __init__(self, storage: Any, executes: bool) -> None:
        self.storage = storage
        self.executes = executes
        self.broken: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.broken ^= {name}
            if name not in self.broken:
                return getattr(self.storage, name)(*args, **kwargs)
            if self.executes:
                getattr(self.storage, name)(*args, **kwargs)
            raise ConnectionLostError("the connection is lost")

        return call


def create_storage(folder: Path, max_wait: float = 60) -> tuple[ReconnectingStorage, list[str]]:
    """Return a storage, and the list of the lines that it reports."""
    lines: list[str] = []
    inner = RDBStorage(f"sqlite:///{folder / 'study.db'}")
    return ReconnectingStorage(inner, "db", Event(), lines.append, max_wait), lines


@pytest.mark.parametrize("executes", [False, True])
def test_a_lost_connection_loses_and_repeats_nothing(tmp_path: Path, executes: bool) -> None:
    storage, _ = create_storage(tmp_path)
    sampler = SeededSampler("random", 1)
    study = optuna.create_study(storage=storage, study_name="s", sampler=sampler)
    breaking: Any = BreakingStorage(storage.storage, executes)
    storage.storage = breaking
    queue = TrialQueue(study, 2, tmp_path, SPACE)
    values = []
    while (trial := queue.next()) is not None:
        values.append(SPACE.suggest(trial))
        trial.report(0.1, 1)
        trial.set_user_attr("run", f"run_{trial.number}")
        study.tell(trial, 0.5 + trial.number)
        queue.release(trial)
    storage.storage = breaking.storage
    trials = study.trials
    assert [trial.params for trial in trials] == values
    assert [trial.value for trial in trials] == [0.5, 1.5]
    assert [trial.user_attrs["run"] for trial in trials] == ["run_0", "run_1"]
    assert [trial.intermediate_values for trial in trials] == [{1: 0.1}, {1: 0.1}]


def test_a_trial_that_another_sweep_has_ended_cannot_be_ended_again(tmp_path: Path) -> None:
    storage, _ = create_storage(tmp_path)
    study = optuna.create_study(storage=storage, study_name="s")
    trial = study.ask()
    study.tell(trial, 0.5)
    with pytest.raises(RuntimeError):
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


class UnreachableStorage:
    """Loses the connection in every call, until the number of `failures` is reached."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def get_all_studies(self) -> list[str]:
        """Fail, or return one name."""
        self.failures -= 1
        if self.failures >= 0:
            raise ConnectionLostError("refused")
        return ["s"]


def test_an_outage_is_reported_at_its_start_and_its_end(tmp_path: Path) -> None:
    storage, lines = create_storage(tmp_path)
    unreachable: Any = UnreachableStorage(1)
    storage.storage = unreachable
    assert storage.get_all_studies() == ["s"]
    assert lines == []  # a single connection may end
    unreachable = UnreachableStorage(2)
    storage.storage = unreachable
    assert storage.get_all_studies() == ["s"]
    lost, back = lines
    assert lost.startswith("The database db is not reachable: refused. Waiting for up to 1 minute")
    assert back.startswith("The database db is reachable again after ")


def test_waiting_has_a_limit_and_ends_with_the_sweep(tmp_path: Path) -> None:
    for max_wait, is_stopped, message in (
        (0, False, "The database db was not reachable for 0 s: refused. Start it, then repeat"),
        (60, True, "The sweep ended while the database db was not reachable: refused. Start it"),
    ):
        storage, _ = create_storage(tmp_path, max_wait)
        unreachable: Any = UnreachableStorage(1_000_000)
        storage.storage = unreachable
        if is_stopped:
            storage.stop.set()
        with pytest.raises(UserError, match=message):
            storage.get_all_studies()
