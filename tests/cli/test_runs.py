"""The command runs: the table."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_lightning.files import read_bounded
from mnist_lightning.runs import summary_json
from mnist_lightning.runs.run_directory import Run
from tests.conftest import Command

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
