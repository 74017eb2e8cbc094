"""Trials: each runs once, in a new run directory, and is pruned if its accuracy is low."""

from pathlib import Path
from threading import Event
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from mnist_lightning.runs import run_directory
from mnist_lightning.tuning.results import started_trials
from mnist_lightning.tuning.search_space import Range, SearchSpace
from mnist_lightning.tuning.study import PRUNERS
from mnist_lightning.tuning.trial_queue import SURPLUS, TrialQueue
from mnist_lightning.tuning.trial_runner import Plan, TrialRunner, _clear_folder

pytestmark = pytest.mark.slow


def create_plan(folder: Path) -> Plan:
    space, root = SearchSpace({"a": Range("choice", (1,))}), folder / "lightning_logs"
    return Plan(space, [], root, folder, threads=1, trials=1, workers=1)


def test_a_bad_trial_is_pruned_but_not_after_its_last_epoch(tmp_path: Path) -> None:
    study = optuna.create_study(direction="maximize", pruner=PRUNERS["asha"]())
    worker = TrialRunner(study, create_plan(tmp_path), Event())
    for value in (0.9, 0.8, 0.7):
        trial = study.ask()
        trial.report(value, 1)
        trial.should_prune()
    run = run_directory.create_next(tmp_path / "lightning_logs")
    run.write_config({"trainer": {"max_epochs": 3}})
    last, decisions = study.ask(), []
    rows = ["step,dataset,epoch,val/accuracy"]
    for epoch, value in ((1, 0.1), (2, 0.1), (3, 0.1)):
        rows.append(f"{10 * epoch},digits,{epoch},{value}")
        (run.folder / "metrics.csv").write_text("\n".join(rows) + "\n")
        decisions.append(worker._should_prune(last, run))
    assert decisions[0]
    assert not decisions[2]
    assert study.trials[last.number].intermediate_values == {1: 0.1, 2: 0.1, 3: 0.1}


def test_each_trial_is_assigned_once(tmp_path: Path) -> None:
    study = optuna.create_study()
    queue, other = TrialQueue(study, 3, tmp_path), TrialQueue(study, 3, tmp_path)
    first, second = queue.next(), other.next()
    assert first is not None
    assert second is not None
    assert (first.number, second.number) == (0, 1)
    queue.release(first)  # as if its sweep had been killed
    continued, third = other.next(), queue.next()
    assert continued is not None
    assert third is not None
    assert (continued.number, third.number) == (0, 2)
    assert queue.next() is other.next() is None
    # Another machine's sweep does not continue trials of this one.
    queue.release(third)
    (tmp_path / "elsewhere").mkdir()
    assert TrialQueue(study, 3, tmp_path / "elsewhere").next() is None


def test_sweeps_that_add_the_last_trial_at_the_same_moment_run_it_once(tmp_path: Path) -> None:
    study = optuna.create_study()
    queues = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        queues.append(TrialQueue(study, 1, tmp_path / name))
        # Both have read that no trial exists.
        owner = {"owner": queues[-1].owner}
        study.add_trial(optuna.create_trial(state=TrialState.RUNNING, user_attrs=owner))
    here, there = queues
    assert there.next() is None
    first = here.next()
    assert first is not None
    assert first.number == 0
    assert study.trials[1].user_attrs["error"] == SURPLUS
    assert [each.number for each in started_trials(study, SearchSpace({}))] == [0]
    there.count = 2  # with more trials, the sweep continues
    second = there.next()
    assert second is not None
    assert second.number == 2
    assert here.next() is None


def test_a_trial_that_another_sweep_enqueued_is_left_to_it(tmp_path: Path) -> None:
    study = optuna.create_study()
    study.enqueue_trial({}, user_attrs={"owner": "another sweep"})
    study.enqueue_trial({})
    queue = TrialQueue(study, 2, tmp_path)
    trial = queue.next()
    assert trial is not None
    assert trial.number == 1
    assert trial.user_attrs["owner"] == queue.owner
    assert queue.next() is None


def test_a_trial_that_ends_during_a_read_is_not_assigned_again(tmp_path: Path) -> None:
    class SlowStudy(optuna.Study):
        """Another worker ends its trial right after the list of trials was read."""

        def get_trials(self, *args: Any, **kwargs: Any) -> list[optuna.trial.FrozenTrial]:
            trials = super().get_trials(*args, **kwargs)
            if queue.locks:
                assert first is not None
                self.tell(first, 0.5)
                queue.release(first)
            return trials

    created = optuna.create_study()
    study = SlowStudy(created.study_name, created._storage)
    queue, other = TrialQueue(created, 2, tmp_path), TrialQueue(study, 2, tmp_path)
    first = queue.next()
    assert first is not None
    second = other.next()
    assert second is not None
    assert (first.number, second.number) == (0, 1)
    assert list(other.locks) == [1]


@pytest.mark.parametrize(
    "stored", ["/", "/etc", "../../precious", "lightning_logs/link", "version_x", "", 3, [], None]
)
def test_a_database_cannot_name_a_foreign_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: object
) -> None:
    monkeypatch.chdir(tmp_path)
    precious = tmp_path / "precious"
    precious.mkdir()
    root = tmp_path / "lightning_logs"
    root.mkdir()
    (root / "version_7").symlink_to(precious)
    study = optuna.create_study()
    worker = TrialRunner(study, create_plan(tmp_path), Event())
    for value in (stored, "version_7"):
        trial = study.ask()
        trial.set_user_attr("run", value)
        run = worker._claim_run(trial)
        assert run.folder.parent == root.resolve()
        assert run.folder.name in ("version_8", "version_9")


def test_a_database_cannot_name_a_foreign_run(tmp_path: Path) -> None:
    root = tmp_path / "lightning_logs"
    mine = run_directory.create_next(root)
    (mine.checkpoints / "epoch=3.ckpt").write_bytes(b"weeks of work")
    study = optuna.create_study()
    worker = TrialRunner(study, create_plan(tmp_path), Event())
    study.enqueue_trial({}, user_attrs={"run": str(mine.folder), "owner": "me"})
    trial = study.ask()
    run = worker._claim_run(trial)
    assert run.folder.name == "version_1"
    assert worker._claim_run(trial).folder == run.folder  # it has the mark
    _clear_folder(run.folder)
    assert worker._claim_run(trial).folder == run.folder
    assert (mine.checkpoints / "epoch=3.ckpt").exists()
