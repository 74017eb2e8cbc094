"""The command runs: the table, and the comparison."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_lightning.files import read_bounded, write_atomically
from mnist_lightning.runs import summary_json
from mnist_lightning.runs.run_directory import Run
from tests.conftest import DIGITS, AddRun, Command

ROOT = Path("lightning_logs")


def write_run(version: int, **facts: object) -> Run:
    """Write a run directory with a summary."""
    run = Run(ROOT / f"version_{version}")
    run.checkpoints.mkdir(parents=True)
    run.write_summary(
        {
            "state": "finished",
            "dataset": "mnist",
            "network": {"class_path": "mnist_lightning.networks.mlp.MLP", "init_args": {}},
            "parameters": 52650,
            "seed": version,
            "epochs": 3,
            "val/accuracy": 0.9 + version / 100,
            "test/accuracy": 0.95,
            "fit_seconds": 61.2,
            **facts,
        }
    )
    return run


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


def test_the_newest_run_is_first_with_its_known_values(command: Command) -> None:
    write_run(0)
    write_run(10, **{"test/accuracy": None, "state": "failed", "fit_seconds": 3700.0})
    lines = command("runs").out.splitlines()
    assert lines[0] == "2 runs in lightning_logs"
    assert lines[2].split() == [
        "10",
        "mnist",
        "MLP",
        "52,650",
        "10",
        "3",
        "100.00",
        "%",
        "1:01",
        "h",
        "failed",
    ]
    assert lines[3].split()[-5:] == ["95.00", "%", "1:01", "min", "finished"]


def test_runs_are_sorted_by_the_given_order(command: Command) -> None:
    for version, accuracy in ((0, 0.97), (1, 0.99), (2, None), (3, 0.98)):
        write_run(version, **{"val/accuracy": accuracy, "fit_seconds": 10.0 * version})

    def order(*options: str) -> list[str]:
        return [row["run"][-1] for row in json.loads(command("runs", "--json", *options).out)]

    assert order() == ["3", "2", "1", "0"]
    assert order("--sort", "best") == ["1", "3", "0", "2"]
    assert order("--sort", "seconds") == ["0", "1", "2", "3"]
    assert "--sort: invalid value beauty" in command("runs", "--sort", "beauty").err


def test_csv_and_json_contain_the_same(command: Command) -> None:
    write_run(0)
    write_run(1, started=None)
    as_json = json.loads(command("runs", "--json").out)
    as_csv = list(csv.DictReader(io.StringIO(command("runs", "--csv").out)))
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in as_json] == as_csv
    assert as_json[1]["val_accuracy"] == 0.9


def read_markdown_table(text: str) -> list[list[str]]:
    """Return the rows of a table in GitHub's Markdown, without the line below the headings."""
    lines = text.splitlines()
    assert re.fullmatch(r"\|( -{3}:? \|)+", lines[1])
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in (lines[0], *lines[2:])]
    assert len({len(row) for row in rows}) == 1
    return [[re.sub(r"\\(.)", r"\1", cell.strip()) for cell in row] for row in rows]


def test_markdown_contains_the_same_as_the_text(command: Command) -> None:
    write_run(0)
    write_run(10, **{"test/accuracy": None, "state": "failed"})
    heading, *rows = read_markdown_table(command("runs", "--markdown").out)
    assert heading[:3] == ["run", "data set", "network"]
    assert [row[0] for row in rows] == ["10", "0"]
    text = command("runs").out.splitlines()[2:]
    assert [" ".join(row).split() for row in rows] == [line.split() for line in text]
    (row,) = read_markdown_table(command("runs", "0", "--markdown").out)[1:]
    assert row[0] == "0"


def test_a_name_in_a_markdown_table_stays_in_its_cell(command: Command) -> None:
    dataset = "a|b\nc `d` <img> \\|"
    write_run(0, dataset=dataset)
    (row,) = read_markdown_table(command("runs", "--markdown").out)[1:]
    assert row[1] == dataset.replace("\n", r"\n")
    assert len(row) == 10


def test_damaged_run_directories_do_not_break_the_table(command: Command) -> None:
    write_run(0)
    (ROOT / "version_1").mkdir()
    (ROOT / "version_2").mkdir()
    (ROOT / "version_2" / "summary.json").write_text('{"state": "runn')
    (ROOT / "version_3").write_text("a file")
    (ROOT / "version_4" / "summary.json").mkdir(parents=True)
    (ROOT / "notes").mkdir()
    nonsense = {"network": [1], "val/accuracy": float("nan"), "epochs": "three", "dataset": 5}
    write_run(5, **nonsense, **{"fit_seconds": {}, "state": 7, "parameters": True, "started": 4.5})
    (ROOT / "version_6").mkdir()
    (ROOT / "version_6" / "summary.json").write_bytes(b"\xff\xfe\x00")
    (ROOT / "version_8").mkdir()
    (ROOT / "version_8" / "summary.json").write_text("[" * 100_000)
    for options in ([], ["--sort", "best"], ["--sort", "dataset"], ["--csv"]):
        result = command("runs", *options)
        assert result.status == 0, result.err
    rows = {row["run"]: row for row in json.loads(command("runs", "--json").out)}
    assert set(rows) == {f"version_{version}" for version in (0, 1, 2, 4, 5, 6, 8)}
    for version in (1, 2, 4, 5, 6, 8):
        known = {name: value for name, value in rows[f"version_{version}"].items() if value}
        known.pop("seed", None)
        assert known == {
            "run": f"version_{version}",
            "state": "unknown",
            **({"test_accuracy": 0.95} if version == 5 else {}),
        }


def test_a_run_whose_process_is_gone_is_interrupted(command: Command) -> None:
    ended, alive = write_run(0, state="running"), write_run(1, state="running")
    script = f"""
from mnist_lightning.runs.run_directory import Run
from pathlib import Path
with Run(Path({str(alive.folder)!r})).lock():
    print("locked", flush=True)
    input()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    try:
        states = [row["state"] for row in json.loads(command("runs", "--json").out)]
    finally:
        process.communicate("\n")
    assert states == ["running", "interrupted"]
    assert ended.summary()["state"] == "running"


def test_a_list_of_runs_imports_no_large_package(command: Command) -> None:
    write_run(0)
    code = (
        "import sys; from mnist_lightning.cli.main import main\n"
        "assert main(['runs', '--sort', 'best']) == 0\n"
        "sys.exit(', '.join({'torch', 'lightning', 'numpy', 'rich'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("finished") == 1


@pytest.fixture
def read_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The run directories whose summaries were read, in this order."""
    names: list[str] = []

    def read_and_record(path: Path, limit: float) -> bytes:
        names.append(path.parent.name)
        return read_bounded(path, limit)

    monkeypatch.setattr(summary_json, "read_bounded", read_and_record)
    return names


@pytest.mark.parametrize("options", [[], ["--sort", "best"], ["--json"], ["--sort", "run"]])
def test_each_summary_is_read_once_and_only_running_runs_are_checked(
    command: Command, read_files: list[str], monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    for version in range(30):
        write_run(version, state="running" if version == 7 else "failed")
    checked = []
    monkeypatch.setattr(Run, "is_locked", lambda run: checked.append(run.version))
    assert command("runs", *options).status == 0
    assert sorted(read_files) == sorted(f"version_{version}" for version in range(30))
    assert checked == [7]


def test_a_limit_shortens_the_list_in_every_format(command: Command, read_files: list[str]) -> None:
    for version in range(12):
        write_run(version, **{"val/accuracy": 0.9 - version / 100})
    lines = command("runs", "--limit", "2").out.splitlines()
    assert lines[0] == "2 of 12 runs in lightning_logs"
    assert [line.split()[0] for line in lines[2:]] == ["11", "10"]
    assert sorted(read_files) == ["version_10", "version_11"]
    best = json.loads(command("runs", "--json", "--sort", "best", "--limit", "2").out)
    assert [row["run"] for row in best] == ["version_0", "version_1"]
    assert len(command("runs", "--csv", "--limit", "2").out.splitlines()) == 3
    assert len(read_markdown_table(command("runs", "--markdown", "--limit", "2").out)) == 3
    assert len(json.loads(command("runs", "--json", "--limit", "99").out)) == 12
    assert command("runs", "--limit", "99").out.startswith("12 runs in lightning_logs\n")


def test_only_a_long_list_ends_with_a_note(command: Command) -> None:
    for version in range(100):
        write_run(version)
    assert command("runs").err == ""
    write_run(100)
    result = command("runs")
    assert len(result.out.splitlines()) == 103
    assert result.err == "for a shorter list: --limit 20, or --sort best --limit 20\n"
    assert command("runs", "--limit", "101").err == ""
    for machine_format in ("--json", "--csv", "--markdown"):
        result = command("runs", machine_format)
        assert result.err == ""
        assert result.out.count("finished") == 101


def test_without_runs_the_status_is_0(command: Command) -> None:
    result = command("runs")
    assert result.status == 0
    assert (
        result.out == "no runs in lightning_logs; train one with: python -m mnist_lightning fit\n"
    )
    assert json.loads(command("runs", "--json").out) == []


def test_mistakes_are_reported(command: Command) -> None:
    write_run(0)
    assert "version_0 is given twice" in command("runs", "0", str(ROOT / "version_0")).err
    assert "run not found: 7 in lightning_logs" in command("runs", "0", "7").err
    assert (
        "both --json and --csv are given; give only one" in command("runs", "--json", "--csv").err
    )
    for other in ("--json", "--csv"):
        error = command("runs", other, "--markdown").err
        assert f"both {other} and --markdown are given; give only one" in error
    assert "at least two runs" in command("runs", "0", "--png", "curves.png").err
    for limit in ("0", "-3"):
        assert f"--limit: invalid value {limit}; give" in command("runs", "--limit", limit).err
    assert "give either --limit or RUNs" in command("runs", "0", "--limit", "3").err
    write_run(1)
    assert (
        "the directory nowhere does not exist"
        in command("runs", "0", "1", "--png", "nowhere/c.png").err
    )


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


def test_the_best_run_is_found_among_invalid_summaries(command: Command) -> None:
    write_run(0)
    write_run(1, **{"val/accuracy": "0.99"})
    assert "version_0 was not made by `fit`" in command("report", "best").err


def test_control_characters_in_a_summary_are_escaped(command: Command) -> None:
    write_run(0, dataset="a\nb\x1b[31m")
    out = command("runs").out
    assert r"a\nb\x1b[31m" in out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 3


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
