"""Rows of published results: their files, and the interval of a new seed."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.stats import t

from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.errors import UserError
from mnist_lightning.evaluation.published import (
    PublishedRow,
    Recipe,
    SeedResult,
    format_seeds,
    list_rows,
    read_row,
)
from mnist_lightning.evaluation.significance import prediction_interval

ROOT = Path(__file__).parents[2]


def make_row(*accuracies: float, seconds: float = 1.0) -> PublishedRow:
    """Return a row of 100 test images."""
    results = [
        SeedResult(
            seed=seed,
            test_accuracy=accuracy,
            val_accuracy=None,
            fit_seconds=seconds,
            predictions=f"{seed:064x}",
            mistakes=dict.fromkeys(range(round(100 * (1 - accuracy))), 3),
        )
        for seed, accuracy in enumerate(accuracies, 1)
    ]
    recipe = Recipe(config_file=None, config={}, options=[], threads=1, accelerator="cpu")
    return PublishedRow(
        name="example",
        recipe=recipe,
        dataset="digits",
        test_size=100,
        parameters=1,
        epochs=1,
        environment={"torch": "2.6"},
        commit="0",
        results=results,
    )


def test_a_prediction_interval_contains_95_of_100_new_values() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(4000):
        *values, new = random.normal(5, 2, 11)
        low, high = prediction_interval(values)
        inside += low <= new <= high
    assert 0.94 < inside / 4000 < 0.96


def test_the_interval_of_a_mean_of_new_values_contains_95_of_100_means() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(4000):
        values, new = random.normal(5, 2, 10), random.normal(5, 2, 20)
        low, high = prediction_interval(list(values), count=20)
        inside += low <= new.mean() <= high
    assert 0.94 < inside / 4000 < 0.96


def test_the_prediction_interval_of_three_values_is_that_of_the_formula() -> None:
    half = t.ppf(0.975, 2) * np.sqrt(1 + 1 / 3)  # the standard deviation of 1, 2, 3 is 1
    assert prediction_interval([1, 2, 3]) == pytest.approx((2 - half, 2 + half))
    with pytest.raises(ValueError, match="single value"):
        prediction_interval([1])


def test_a_saved_row_is_read_unchanged_with_a_line_for_each_seed(tmp_path: Path) -> None:
    row = make_row(0.97, 0.98, 0.99)
    row.save(tmp_path)
    path = tmp_path / "example.json"
    assert read_row(path) == row
    assert sum(line.lstrip().startswith('{"seed"') for line in path.read_text().splitlines()) == 3
    assert row.command == "python -m mnist_lightning fit --seeds 1..3"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"test_size": 0}, "test_size"),
        ({"results": []}, "results"),
        ({"unknown": 1}, "unknown"),
        ({"test_size": 200}, "contradicts itself: seed 1: 3 mistakes, test accuracy 0.97"),
    ],
)
def test_a_damaged_row_is_reported(tmp_path: Path, change: dict[str, object], problem: str) -> None:
    content = json.loads(make_row(0.97).model_dump_json()) | change
    path = tmp_path / "example.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=problem):
        read_row(path)


def test_seeds_are_written_as_the_command_reads_them() -> None:
    assert format_seeds([1, 2, 3]) == "1..3"
    assert format_seeds([1, 2, 7]) == "1,2,7"
    assert format_seeds([42]) == "42"


@pytest.mark.parametrize("name", list_rows())
def test_a_published_row_is_of_its_current_config(name: str) -> None:
    row = read_row(list_rows()[name])
    assert row.name == name
    assert row.dataset in SOURCES
    assert not row.commit.endswith("-dirty")
    assert len(row.results) >= 5
    if row.recipe.config_file is not None:
        assert row.recipe.config == yaml.safe_load((ROOT / row.recipe.config_file).read_text())
