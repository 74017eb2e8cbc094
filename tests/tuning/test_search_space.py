"""The space of a sweep, as people write it."""

from pathlib import Path

import optuna
import pytest

from mnist_lightning import UserError
from mnist_lightning.tuning import search_space

WRITTEN = """
model.optimizer.init_args.lr: {log_uniform: [1e-4, 1e-1]}
model.label_smoothing: {uniform: [0, 0.2]}
data.batch_size: {log_int: [16, 2.56e2]}
trainer.max_epochs: {int: [1, 3]}
model.network: {choice: [ClassicCNN, {class_path: DigitNet, init_args: {dropout: 0.1}}, null]}
"""


def written(folder: Path, text: str) -> Path:
    (folder / "space.yaml").write_text(text)
    return folder / "space.yaml"


def test_trials_choose_values_of_each_option(tmp_path: Path) -> None:
    found = search_space.read(written(tmp_path, WRITTEN))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    points = [found.suggest(study.ask()) for _ in range(60)]
    rates = [point["model.optimizer.init_args.lr"] for point in points]
    assert 1e-4 <= min(rates) < 1e-3 < 1e-2 < max(rates) <= 1e-1
    sizes = [point["data.batch_size"] for point in points]
    assert all(isinstance(size, int) and 16 <= size <= 256 for size in sizes)
    assert sum(size < 64 for size in sizes) > 20  # as many below the middle of the logarithms
    assert {point["trainer.max_epochs"] for point in points} == {1, 2, 3}
    assert {point["model.network"] for point in points} == {
        "ClassicCNN", '{"class_path": "DigitNet", "init_args": {"dropout": 0.1}}', None
    }  # fmt: skip
    assert search_space.as_options({"a.b": 1e-05, "c": None, "d": "SGD", "e": True}) == [
        "--a.b=1e-05", "--c=null", "--d=SGD", "--e=true"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no space: a line of one is, say, model.optimizer"),
        ("[1, 2]", "is no space"),
        ("a: [", "is no YAML"),
        ("a: 3", "3 is not one of uniform, log_uniform, int, log_int, choice"),
        ("a: {normal: [0, 1]}", "there is no 'normal', but uniform"),
        ("a: {uniform: [0]}", r"uniform takes \[low, high\], not \[0\]"),
        ("a: {uniform: [x, y]}", "uniform takes two numbers"),
        ("a: {uniform: [2, 1]}", "goes from a lower to a higher number, not"),
        ("a: {log_uniform: [0, 1]}", "a lower to a higher number above 0"),
        ("a: {choice: []}", "choice takes"),
        ("a: {choice: [1, 1.0]}", "each value once"),
        ("a: {choice: [2020-01-01]}", "timestamp has no place here; put a text in quotes"),
        ("a: {int: [1.5, 5]}", "int takes two whole numbers"),
        ("a: {int: [true, 5]}", "int takes two numbers"),
        ("a: {uniform: [0, .inf]}", "uniform takes two numbers"),
    ],
)
def test_mistakes_in_a_space_are_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        search_space.read(written(tmp_path, text))


def test_a_space_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.yaml: No such file"):
        search_space.read(tmp_path / "none.yaml")
