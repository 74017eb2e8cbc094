"""`sweep --sampler grid`: each combination is tried once."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from mnist_lightning import UserError
from mnist_lightning.cli import sweep
from mnist_lightning.tuning.search_space import Range, SearchSpace
from mnist_lightning.tuning.trial_queue import TrialQueue
from tests.conftest import Command
from tests.tuning.conftest import SWEEP, read_trials

RANGES = {"a": Range("choice", (2, 1.5, True, None, "2")), "b": Range("int", (2, 3))}
POINTS: list[dict[str, Any]] = [{"a": a, "b": b} for a in (2, 1.5, True, None, "2") for b in (2, 3)]
RATE, EPOCHS = "model.optimizer.init_args.lr", "trainer.max_epochs"
GRID = f"{RATE}: {{choice: [0.01, -1.0, 0.003]}}\n{EPOCHS}: {{int: [1, 2]}}\n"


def create_queue(study: optuna.Study, folder: Path, count: int | None = None) -> TrialQueue:
    """Return the queue of a grid, or of its first `count` points."""
    space = SearchSpace(RANGES)
    folder.mkdir(exist_ok=True)
    return TrialQueue(study, 0, folder, space._replace(points=space.grid()[:count]))


def take_all(queue: TrialQueue, state: TrialState = TrialState.COMPLETE) -> list[optuna.Trial]:
    """Take and end all trials of a queue."""
    trials = []
    while (trial := queue.next()) is not None:
        trials.append(trial)
        value = 0.5 if state == TrialState.COMPLETE else None
        queue.study.tell(trial, value, state=state)
        queue.release(trial)
    return trials


def same(trials: list[optuna.Trial], points: list[dict[str, Any]]) -> bool:
    """Compare the values of trials with points; `1` and `True` differ."""
    return repr([trial.params for trial in trials]) == repr(points)


def test_a_grid_has_all_combinations_in_the_order_of_the_space() -> None:
    assert repr(SearchSpace(RANGES).grid()) == repr(POINTS)


@pytest.mark.parametrize("kind", ["uniform", "log_uniform", "log_int"])
def test_a_continuous_option_is_refused_with_the_fix(kind: str) -> None:
    space = SearchSpace(RANGES | {"c.d": Range(kind, (1, 64))})
    with pytest.raises(UserError, match=rf"c\.d is {kind}: write c\.d: {{choice: \[1, …, 64\]}}"):
        space.grid()


def test_a_grid_of_too_many_combinations_is_refused() -> None:
    space = SearchSpace(RANGES | {"c": Range("int", (1, 10**15))})
    with pytest.raises(UserError, match=r"10,000,000,000,000,000 combinations exceed 10,000"):
        space.grid()


def test_each_combination_is_assigned_once_to_parallel_workers(tmp_path: Path) -> None:
    study = optuna.create_study()
    queues = [create_queue(study, tmp_path) for _ in range(2)]  # of two processes
    trials = [queues[turn % 2].next() for turn in range(len(POINTS))]
    assert same([trial for trial in trials if trial is not None], POINTS)
    assert queues[0].next() is queues[1].next() is None


def test_a_trial_of_a_grid_keeps_its_values(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=storage, study_name="s")
    space = SearchSpace(RANGES)
    queue = create_queue(study, tmp_path)
    for point in POINTS:
        trial = queue.next()
        assert trial is not None
        assert repr(space.suggest(trial)) == repr(point)


def test_a_killed_trial_continues_with_its_combination(tmp_path: Path) -> None:
    study = optuna.create_study()
    killed = create_queue(study, tmp_path)
    first = killed.next()
    assert first is not None
    killed.release(first)  # the lock of a process that was killed
    trials = take_all(create_queue(study, tmp_path))
    assert trials[0].number == first.number
    assert same(trials, POINTS)
    assert take_all(create_queue(study, tmp_path)) == []


def test_failed_combinations_are_tried_again_by_the_next_sweep_after_the_new_ones(
    tmp_path: Path,
) -> None:
    study = optuna.create_study()
    assert same(take_all(create_queue(study, tmp_path, 3), TrialState.FAIL), POINTS[:3])
    assert same(take_all(create_queue(study, tmp_path, 5)), [*POINTS[3:5], *POINTS[:3]])
    assert take_all(create_queue(study, tmp_path, 5)) == []


def test_a_combination_of_another_machine_is_not_repeated(tmp_path: Path) -> None:
    study = optuna.create_study()
    here, there = (create_queue(study, tmp_path / name) for name in ("here", "there"))
    first = there.next()
    assert first is not None
    # Both machines read the list of trials at the same moment.
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(POINTS[0]),
            distributions={name: each.distribution for name, each in RANGES.items()},
            user_attrs={"owner": here.owner},
        )
    )
    assert same(take_all(here), POINTS[1:])
    assert study.trials[1].user_attrs["error"] == "another trial has the same values"
    there.release(first)
    assert same(take_all(there), POINTS[:1])


@pytest.mark.slow
def test_a_sweep_tries_each_combination_once_and_failed_ones_again(
    command: Command, sweep_folder: Path
) -> None:
    (sweep_folder / "space.yaml").write_text(GRID)
    grid = [*SWEEP, "--model.network", "MultilayerPerceptron", "--sampler", "grid"]
    first = command(*grid, "--trials", "3")
    assert first.status == 0, first.err
    assert "3 trials: 2 finished, 1 failed" in first.out
    result = command(*grid, "--workers", "2")
    assert result.status == 0, result.err
    assert "sweep space: 6 trials, 2 of them started before, 2 in parallel" in result.out
    assert "6 trials: 4 finished, 2 failed" in result.out
    trials = read_trials(sweep_folder)
    tried = [(trial.params[RATE], trial.params[EPOCHS]) for trial in trials]
    assert len(tried) == 7
    assert set(tried) == {(rate, epochs) for rate in (0.01, -1.0, 0.003) for epochs in (1, 2)}
    assert tried.count((-1.0, 1)) == 2
    assert [trial.state for trial in trials if trial.params[RATE] > 0] == [TrialState.COMPLETE] * 4
    assert (sweep_folder / "lightning_logs" / "sweeps" / "space" / "best.yaml").is_file()


@pytest.mark.parametrize(
    ("words", "pruner"),
    [("", "asha"), ("--sampler grid", "none"), ("--sampler grid --pruner median", "median")],
)
def test_a_grid_prunes_no_trial_by_default(words: str, pruner: str) -> None:
    options, _ = sweep.make_parser().split(["--space", "space.yaml", *words.split()])
    assert sweep._study_options(options).pruner == pruner


def test_a_continuous_space_is_refused_before_any_trial(
    command: Command, sweep_folder: Path
) -> None:
    (sweep_folder / "space.yaml").write_text(f"{RATE}: {{log_uniform: [1e-4, 0.1]}}\n")
    result = command(*SWEEP, "--sampler", "grid")
    assert result.status == 2
    assert f"--sampler grid needs lists of values, {RATE} is log_uniform: write" in result.err
    assert not (sweep_folder / "lightning_logs").exists()
