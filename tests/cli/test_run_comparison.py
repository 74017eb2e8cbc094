"""The command runs with several RUNs: the comparison."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_lightning.files import write_atomically
from mnist_lightning.runs.run_directory import Run
from tests.cli.test_runs import ROOT, read_markdown_table, write_run
from tests.conftest import DIGITS, AddRun, Command


@pytest.fixture
def three_runs(command: Command, add_run: AddRun) -> Command:
    """A command in a directory with two runs that differ in the seed, and one in the rate."""
    short = [*DIGITS, "--trainer.max_epochs", "2", "--dashboards", "none"]
    for options in (
        ["--seed_everything", "1"],
        ["--seed_everything", "2"],
        ["--model.optimizer.lr", "0.003"],
    ):
        add_run(*short, *options)
    return command


def test_a_comparison_shows_different_options_and_results(three_runs: Command) -> None:
    result = three_runs("runs", "0", "1", "2")
    assert result.status == 0, result.err
    assert "  seed_everything\n    0: 1\n    1: 2\n    2: 42\n" in result.out
    assert "  model.optimizer.lr\n    0, 1: 0.001\n    2: 0.003\n" in result.out
    assert "0, 1 differ only in their seed: val " in result.out
    # Two epochs are too few.
    for line, run in zip(result.out.splitlines(), (0, 1, 2), strict=False):
        assert line == f"{run}: Too few epochs to tell: 2 epochs, and a trend needs 3."
    facts = json.loads(three_runs("runs", "0", "1", "2", "--json").out)
    tests = [run["test_accuracy"] for run in facts["runs"]]
    (pool,) = facts["pools"]
    assert pool["runs"] == ["version_0", "version_1"]
    assert pool["mean"]["test"] == pytest.approx(np.mean(tests[:2]))
    assert pool["std"]["test"] == pytest.approx(np.std(tests[:2], ddof=1))
    assert set(facts["settings"]) == {"seed_everything", "model.optimizer.lr"}
    for test in facts["mcnemar"]:
        first, second = (tests[int(test[name][-1])] for name in ("first", "second"))
        assert test["only_first"] - test["only_second"] == round(297 * (first - second))
    image = np.asarray(Image.open(ROOT / "comparison.png").convert("L"))
    assert image.std() > 5


def test_a_comparison_begins_with_a_sentence_on_each_training(command: Command) -> None:
    losses = {0: ([0.5, 0.3, 0.1, 0.05], [0.4, 0.3, 0.5, 0.6]), 1: ([0.5, 0.3], [0.4, 0.3])}
    for version, pairs in losses.items():
        rows = [
            f"{step},mnist,{step},{train},0.99,{val},0.98"
            for step, (train, val) in enumerate(zip(*pairs, strict=True))
        ]
        heading = "step,dataset,epoch,train/loss,train/accuracy,val/loss,val/accuracy"
        path = write_run(version).folder / "metrics.csv"
        path.write_text("\n".join([heading, *rows, ""]))
    write_run(2)  # without curves
    result = command("runs", "0", "1", "2")
    first, second, empty, *_ = result.out.splitlines()
    assert first.startswith("0: Overfitting: the validation loss is lowest in epoch 2 (0.3000)")
    assert second.startswith("1: Too few epochs to tell: 2 epochs")
    assert empty == ""
    trainings = json.loads(command("runs", "0", "1", "2", "--json").out)["trainings"]
    assert {name: found["kind"] for name, found in trainings.items()} == {
        "version_0": "overfitting",
        "version_1": "too few epochs",
    }
    assert trainings["version_0"]["text"] == first.removeprefix("0: ")


def test_a_comparison_in_markdown_contains_the_same_as_the_text(three_runs: Command) -> None:
    parts = three_runs("runs", "0..2", "--markdown").out.split("\n\n")
    trainings, results, settings, lines = parts
    assert not (ROOT / "comparison.png").exists()
    text = three_runs("runs", "0..2").out
    for row in read_markdown_table(results)[1:]:
        assert " ".join(row).split() in [line.split() for line in text.splitlines()]
    assert read_markdown_table(settings) == [
        ["setting", "0", "1", "2"],
        ["seed_everything", "1", "2", "42"],
        ["model.optimizer.lr", "0.001", "0.001", "0.003"],
    ]
    listed = [*trainings.splitlines(), *lines.splitlines()]
    items = [re.sub(r"\\(.)", r"\1", line) for line in listed]
    assert len(items) == 7  # three trainings, three tests, and one group
    assert all(item.removeprefix("- ") in text for item in items)


def test_a_different_class_is_shown_with_its_arguments(command: Command) -> None:
    for options in ([], ["--model.network", "MultilayerPerceptron"]):
        run = [*DIGITS, "--trainer.max_steps", "2", "--dashboards", "none", *options]
        assert command("fit", *run).status == 0
    out = command("runs", "0", "1").out
    assert (
        "  model.network\n    0: ClassicCNN(num_classes=10, dropout=0.5)\n    1: Multilayer" in out
    )


def test_runs_that_cannot_be_compared_are_reported(three_runs: Command) -> None:
    Run(ROOT / "version_1").predictions.unlink()
    other = Run(ROOT / "version_2").predictions
    lines = other.read_text().splitlines(keepends=True)
    write_atomically("".join(lines[:100]).encode(), other)
    out = three_runs("runs", "0", "1", "2").out
    assert "version_1 has no predictions.csv for McNemar's test: python" in out
    assert "version_0 and version_2 were tested on different images" in out
    (ROOT / "version_0" / "config.yaml").unlink()
    assert three_runs("runs", "0", "2").status == 0


def test_run_directories_of_the_same_name_are_distinguished(
    three_runs: Command, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "version_1", tmp_path / "elsewhere" / "version_0")
    alike = str(tmp_path / "elsewhere" / "version_0")
    facts = json.loads(three_runs("runs", "0", "2", alike, "--json").out)
    assert [run["run"] for run in facts["runs"]] == [
        str(ROOT / "version_0"),
        str(ROOT / "version_2"),
        alike,
    ]
    assert len(facts["mcnemar"]) == 3
    assert facts["pools"][0]["runs"] == [str(ROOT / "version_0"), alike]


def test_runs_are_compared_from_anywhere(
    three_runs: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    folders = [str(tmp_path / ROOT / f"version_{version}") for version in (0, 1)]
    result = three_runs("runs", *folders)
    assert result.status == 0, result.err
    assert "McNemar's p" in result.out
    assert list((tmp_path / "away").iterdir()) == []


def test_a_damaged_file_of_one_run_does_not_prevent_the_comparison(three_runs: Command) -> None:
    broken = Run(ROOT / "version_1")
    broken.config.write_text("foo: [1,")
    broken.predictions.write_text("index,true\n")
    (broken.folder / "metrics.csv").write_text("step,epoch,val/loss\n1,1,abc\n")
    result = three_runs("runs", "0", "1", "2")
    assert result.status == 0, result.err
    for damaged in (
        "config.yaml is damaged or not a configuration",
        "predictions.csv is damaged or not a table",
        "metrics.csv is damaged",
    ):
        assert damaged in result.out
    assert "0 against 2" in result.out


def test_copies_of_a_run_do_not_count_as_seeds(three_runs: Command, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "version_0", ROOT / "version_7")
    assert "differ only in their seed" not in three_runs("runs", "0", "7").out


def test_initial_weights_are_a_setting_and_the_pretrained_network_has_none(
    three_runs: Command,
) -> None:
    short = [*DIGITS, "--trainer.max_epochs", "2", "--dashboards", "none"]
    three_runs("fit", *short, "--seed_everything", "1", "--init_from", "0")
    compared = three_runs("runs", "0", "3").out
    assert "  init_from\n    0: None\n    3: lightning_logs/version_0/" in compared
    with_pretrained = three_runs("runs", "0", "pretrained").out
    assert "pretrained has no config.yaml: its settings are not compared" in with_pretrained
    assert "all settings are equal" in with_pretrained
