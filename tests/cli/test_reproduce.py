"""The command `reproduce`, on a row of the bundled digits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mnist_lightning.evaluation import published
from mnist_lightning.evaluation.published import PublishedRow, Recipe, SeedResult, read_row
from mnist_lightning.training.recipe_runs import train_seed
from tests.conftest import Command

RECIPE = Recipe(
    config_file=None,
    config={
        "model": {"network": "MultilayerPerceptron"},
        "data": {"dataset": "digits"},
        "trainer": {"max_epochs": 1},
        "dashboards": "none",
    },
    options=["--keep_last", "1"],
    threads=1,
    accelerator="cpu",
)


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> PublishedRow:
    """Return a row of three real trainings."""
    folder = tmp_path_factory.mktemp("row")
    runs = [train_seed(RECIPE, seed, folder, "data") for seed in (1, 2, 3)]
    facts = runs[0].run.summary()
    return PublishedRow(
        name="small",
        recipe=RECIPE,
        dataset=facts["dataset"],
        test_size=facts["test_size"],
        parameters=facts["parameters"],
        epochs=facts["epochs"],
        environment=runs[0].environment,
        commit=facts["commit"] or "0",
        results=[run.result for run in runs],
    )


Publish = Callable[..., PublishedRow]


@pytest.fixture
def publish(row: PublishedRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Return a function that publishes this row, with changes of the results by seed."""
    folder = tmp_path / "published"
    folder.mkdir()
    monkeypatch.setattr(published, "RESULTS", folder)

    def save(**changes: Any) -> PublishedRow:
        results = [result.model_copy(update=changes) for result in row.results]
        changed = row.model_copy(update={"results": results})
        changed.save(folder)
        return read_row(folder / "small.json")

    return save


def with_mistakes(result: SeedResult, count: int, size: int) -> dict[str, Any]:
    """Return the changes that give a result so many mistakes."""
    return {"test_accuracy": 1 - count / size, "mistakes": dict.fromkeys(range(count), 3)}


@pytest.mark.slow
def test_the_same_seed_gives_equal_predictions(command: Command, publish: Publish) -> None:
    row = publish()
    result = command("reproduce", "small")
    assert result.status == 0
    assert f"all {row.test_size} predictions are equal, with all probabilities" in result.out
    assert "small: equal" in result.out


@pytest.mark.slow
def test_other_probabilities_are_consistent_if_the_accuracy_is(
    command: Command, publish: Publish
) -> None:
    publish(predictions="0" * 64)
    result = command("reproduce", "small")
    assert result.status == 0
    assert "other labels for 0 images; same versions, same kind of processor" in result.out
    assert "small: consistent" in result.out


@pytest.mark.slow
def test_an_accuracy_outside_the_interval_is_different(
    command: Command, publish: Publish, row: PublishedRow
) -> None:
    # Three equal accuracies: their interval contains only this one.
    publish(predictions="0" * 64, **with_mistakes(row.results[0], 1, row.test_size))
    result = command("reproduce", "small")
    assert result.status == 1
    assert "small: different" in result.out
    result = command("reproduce", "small", "--new_seeds", "2", "--workers", "2")
    assert result.status == 1
    assert "seed 4: " in result.out
    assert "0 of 2 new seeds inside" in result.out


@pytest.mark.slow
def test_new_seeds_are_compared_with_the_interval(
    command: Command, publish: Publish, tmp_path: Path
) -> None:
    row = publish()
    result = command("reproduce", "small", "--new_seeds", "2")
    again = [train_seed(RECIPE, seed, tmp_path, "data").result.test_accuracy for seed in (4, 5)]
    low, high = row.interval()
    inside = sum(low <= accuracy <= high for accuracy in again)
    for seed, accuracy in zip((4, 5), again, strict=True):
        assert f"seed {seed}: {100 * accuracy:.2f} %" in result.out
    assert f"{inside} of 2 new seeds inside" in result.out
    mean_low, mean_high = row.interval(2, level=0.99)
    consistent = mean_low <= sum(again) / 2 <= mean_high
    assert result.status == (0 if consistent else 1)


def test_a_slow_row_is_checked_by_its_stored_predictions(
    command: Command, publish: Publish, row: PublishedRow
) -> None:
    publish(fit_seconds=61.0)
    result = command("reproduce", "--quick")
    assert result.status == 0
    assert "stored predictions confirm the figures; nothing was trained" in result.out
    wrong_image = with_mistakes(row.results[0], row.test_size, row.test_size)
    publish(fit_seconds=61.0, **wrong_image)  # also images of a 3 are said to be read as 3
    result = command("reproduce", "--quick")
    assert result.status == 1
    assert "seed 1: its stored predictions do not belong to this test set" in result.out


def test_the_rows_are_listed(command: Command, publish: Publish) -> None:
    row = publish()
    result = command("reproduce")
    assert f"{100 * row.spread.mean:.2f} ± {100 * row.spread.std:.2f} %" in result.out
    assert "python -m mnist_lightning reproduce small" in result.out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["smal"], "unknown row 'smal'; did you mean small? Valid: small"),
        (
            ["small", "--quick", "--new_seeds", "2"],
            "--quick trains a published seed, --new_seeds others",
        ),
        (["small", "--new_seeds", "0"], "--new_seeds 0: expected 1 to 1000"),
        (["small", "--workers", "0"], "--workers 0: expected at least 1"),
    ],
)
def test_mistakes_are_reported(
    command: Command, publish: Publish, arguments: list[str], problem: str
) -> None:
    publish()
    result = command("reproduce", *arguments)
    assert result.status == 2
    assert problem in result.err


def test_missing_data_is_reported(command: Command, tmp_path: Path) -> None:
    result = command("reproduce", "mlp", "--data.data_dir", str(tmp_path))
    assert result.status == 1
    assert f"mnist is not in {tmp_path}; download it: " in result.err


@pytest.mark.slow
def test_a_failed_training_is_reported(
    command: Command, publish: Publish, row: PublishedRow
) -> None:
    recipe = RECIPE.model_copy(update={"config": {"model": {"network": "Unknown"}}})
    row.model_copy(update={"recipe": recipe}).save(published.RESULTS)
    result = command("reproduce", "small")
    assert result.status == 1
    assert "the training with seed 1 failed: " in result.err
    assert "Unknown" in result.err
