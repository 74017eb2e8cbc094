"""Reading the search space of a sweep."""

from pathlib import Path

import optuna
import pytest

from mnist_lightning import UserError
from mnist_lightning.tuning import search_space

SPACE = """
model.optimizer.init_args.lr: {log_uniform: [1e-4, 1e-1]}
model.label_smoothing: {uniform: [0, 0.2]}
data.batch_size: {log_int: [16, 2.56e2]}
trainer.max_epochs: {int: [1, 3]}
model.network: {choice: [ClassicCNN, {class_path: DigitNet, init_args: {dropout: 0.1}}, null]}
"""


def write_space(folder: Path, text: str) -> Path:
    (folder / "space.yaml").write_text(text)
    return folder / "space.yaml"


def test_trials_choose_values_of_each_option(tmp_path: Path) -> None:
    space = search_space.read(write_space(tmp_path, SPACE))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    points = [space.suggest(study.ask()) for _ in range(60)]
    rates = [point["model.optimizer.init_args.lr"] for point in points]
    assert 1e-4 <= min(rates) < 1e-3 < 1e-2 < max(rates) <= 1e-1
    sizes = [point["data.batch_size"] for point in points]
    assert all(isinstance(size, int) and 16 <= size <= 256 for size in sizes)
    assert sum(size < 64 for size in sizes) > 20  # half of the range in logarithms
    assert {point["trainer.max_epochs"] for point in points} == {1, 2, 3}
    assert {point["model.network"] for point in points} == {
        "ClassicCNN", '{"class_path": "DigitNet", "init_args": {"dropout": 0.1}}', None
    }  # fmt: skip


def test_values_override_the_options_and_the_options_override_a_config() -> None:
    values = {"a.b": 1e-05, "c": None, "config": "a.yaml", "d": "SGD", "e": True}
    assert search_space.add_options(["--d", "Adam"], values) == [
        "--config=a.yaml", "--d", "Adam", "--a.b=1e-05", "--c=null", "--d=SGD", "--e=true"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected lines such as model.optimizer"),
        ("[1, 2]", "expected lines such as"),
        ("a: [", "invalid YAML in"),
        ("a: 3", "invalid value 3: expected one of: uniform, log_uniform, int, log_int, choice"),
        ("a: {normal: [0, 1]}", "unknown kind 'normal': expected one of: uniform"),
        ("a: {uniform: [0]}", r"invalid uniform \[0\]: expected \[low, high\]"),
        ("a: {uniform: [x, y]}", "expected two numbers"),
        ("a: {uniform: [2, 1]}", "expected the lower number first"),
        ("a: {log_uniform: [0, 1]}", "expected the lower number first, both above 0"),
        ("a: {choice: []}", "invalid choice"),
        ("a: {choice: [1, 1.0]}", "a value appears twice"),
        ("a: {choice: [2020-01-01]}", "timestamp is not supported; put text in quotes"),
        ("a: {int: [1.5, 5]}", "expected two whole numbers"),
        ("a: {int: [true, 5]}", "expected two numbers"),
        ("a: {uniform: [0, .inf]}", "expected two numbers"),
    ],
)
def test_mistakes_in_a_space_are_reported(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        search_space.read(write_space(tmp_path, text))


def test_a_missing_space_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.yaml: No such file"):
        search_space.read(tmp_path / "none.yaml")
