"""The values of a trial depend on the seed and its number, not on the sweep that draws them."""

import optuna
import pytest

from mnist_lightning.tuning.samplers import SeededSampler
from mnist_lightning.tuning.search_space import Range, SearchSpace

SPACE = SearchSpace(
    {
        "a": Range("uniform", (0.0, 1.0)),
        "b": Range("uniform", (0.0, 1.0)),
        "c": Range("int", (1, 9)),
    }
)


def draw(kind: str, seed: int, restarts: bool) -> list[dict[str, object]]:
    """Return the values of 15 trials; a sweep that is killed has a new sampler."""
    study = optuna.create_study(sampler=SeededSampler(kind, seed))
    values = []
    for number in range(15):
        if restarts:
            study.sampler = SeededSampler(kind, seed)
        trial = study.ask()
        values.append(SPACE.suggest(trial))
        study.tell(trial, float(number % 4))
    return values


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_a_restart_changes_no_value(kind: str) -> None:
    values = draw(kind, 1, restarts=False)
    assert values == draw(kind, 1, restarts=True)
    assert values[0] != draw(kind, 2, restarts=False)[0]
    assert len({value["a"] for value in values} | {value["b"] for value in values}) == 30


def test_sweeps_that_share_a_study_draw_different_values() -> None:
    """They have the same seed, and start with the same number of trials."""
    study = optuna.create_study()
    first, second = (
        optuna.Study(study.study_name, study._storage, SeededSampler("random", 1)) for _ in range(2)
    )
    trials = [each.ask() for each in (first, second, first, second)]
    assert len({SPACE.suggest(trial)["a"] for trial in trials}) == 4
