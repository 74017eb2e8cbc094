"""`sweep --configs`: each file is trained with each seed; and `fast_dev_run` in a sweep."""

import re
import shutil
import signal
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import optuna
import pytest

from mnist_lightning.cli import sweep_configs
from mnist_lightning.runs import run_directory
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.tuning.trial_queue import TrialQueue
from mnist_lightning.tuning.trial_runner import Plan, TrialRunner
from tests.conftest import DIGITS, Command
from tests.tuning.conftest import SHORT, start_process

ROOT = Path("lightning_logs")


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sequence[str]:
    """Return two files: one of a good network, and one of a bad one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(
        "model: {network: MultilayerPerceptron, optimizer: {class_path: torch.optim.Adam, "
        "init_args: {lr: 0.01}}}\ntrainer: {max_epochs: 3, accelerator: cpu}\ndashboards: none\n"
    )
    (tmp_path / "bad.yaml").write_text(
        "model: {network: MultilayerPerceptron, optimizer: {class_path: torch.optim.SGD, "
        "init_args: {lr: 1.0e-9}}}\ntrainer: {max_epochs: 3, accelerator: cpu}\ndashboards: none\n"
    )
    return ["bad.yaml", "good.yaml"]


def cells(text: str, name: str) -> list[str]:
    """Return the cells of a row of the table."""
    (row,) = (line for line in text.splitlines() if re.match(rf"│ {name} +│", line))
    return [cell.strip() for cell in row.split("│")[1:-1]]


def spread(values: Sequence[float]) -> str:
    """Format shares as percentages, mean ± standard deviation."""
    shares = [100 * value for value in values]
    return f"{statistics.fmean(shares):.2f} ± {statistics.stdev(shares):.2f}"


@pytest.fixture
def plan(configs: Sequence[str]) -> Plan:
    space = sweep_configs.make_space(configs, [2, 1])
    folder = ROOT / "sweeps" / "comparison"
    folder.mkdir(parents=True)
    return Plan(space, [], ROOT, folder, threads=1, trials=4, workers=1)


ACCURACIES = {("bad.yaml", 1): 0.5, ("bad.yaml", 2): 0.4, ("good.yaml", 1): 0.9}
ACCURACIES["good.yaml", 2] = 0.8


def create_trials(plan: Plan, failing: str = "") -> optuna.Study:
    """Return a study whose trials have ended; the test accuracy is lower by a tenth."""
    study = optuna.create_study(direction="maximize")
    queue = TrialQueue(study, 0, plan.folder, plan.space)
    runner = TrialRunner(study, plan, Event())
    while (trial := queue.next()) is not None:
        run = runner._claim_run(trial)
        config, seed = trial.params["config"], trial.params["seed_everything"]
        if config == failing:
            runner._record_failure(trial, "status 1: no space left")
        else:
            val = ACCURACIES[config, seed]
            facts = {"val/accuracy": val, "test/accuracy": val - 0.1, "epoch_seconds": val}
            run.write_summary({"state": "finished", **facts})
            study.tell(trial, val)
        queue.release(trial)
    return study


def test_the_table_has_a_row_for_each_config_in_the_order_of_val(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep_configs.show_results(create_trials(plan), plan) == 0
    text = capsys.readouterr().out
    good = ["good", "2", "85.00 ± 7.07", "75.00 ± 7.07", "0.85", "3, 1"]
    bad = ["bad", "2", "45.00 ± 7.07", "35.00 ± 7.07", "0.45", "2, 0"]
    assert cells(text, "good") == good
    assert cells(text, "bad") == bad
    assert text.index("│ good") < text.index("│ bad")
    assert "runs 3 2" in text


def test_numbers_stay_on_one_line_beside_a_long_name(
    plan: Plan, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = create_trials(plan)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sweep_configs, "labels", lambda of: {name: name + "x" * 60 for name in of})
    sweep_configs.show_results(study, plan)
    text = capsys.readouterr().out
    assert "│ 85.00 ± 7.07 │ 75.00 ± 7.07 │" in text
    assert all(len(line) <= 80 for line in text.splitlines() if "│" in line)


def test_failed_and_deleted_runs_are_named_and_the_status_is_1(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    study = create_trials(plan, failing="bad.yaml")
    shutil.rmtree(ROOT / "version_3")
    assert sweep_configs.show_results(study, plan) == 1
    text = capsys.readouterr().out
    assert cells(text, "bad") == ["bad", "0 of 2", "", "", "", ""]
    assert cells(text, "good") == ["good", "1 of 2", "80.00", "70.00", "0.80", "1"]
    assert "failed: bad, seed 1, 2: status 1: no space left\n" in text
    assert "not in the table: 1 run, deleted or on another machine." in text


def test_a_run_without_the_mark_of_the_sweep_is_not_in_the_table(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    study = create_trials(plan)
    (ROOT / "version_3" / ".trial").write_text("somebody else")
    sweep_configs.show_results(study, plan)
    assert cells(capsys.readouterr().out, "good")[1] == "1 of 2"


def test_a_config_is_named_after_its_file_unless_two_names_are_equal() -> None:
    inline = '{"model": {"network": "TinyCNN"}}'
    names = sweep_configs.labels(["a/mlp.yaml", "b/tiny.yaml", inline])
    assert list(names.values()) == ["mlp", "tiny", inline]
    paths = ["a/mlp.yaml", "b/mlp.yaml"]
    assert list(sweep_configs.labels(paths).values()) == paths
    assert sweep_configs.default_name(["a/mlp.yaml", "b/tiny.yaml"]) == "mlp-tiny"
    for configs in ([inline], paths, [f"{n}{'x' * 50}.yaml" for n in range(9)]):
        assert re.fullmatch(r"\w[\w. -]{0,99}", sweep_configs.default_name(configs))


@pytest.mark.slow
def test_each_file_is_trained_and_tested_with_each_seed(
    command: Command, configs: Sequence[str], tmp_path: Path
) -> None:
    # It passes the checks of the command, and fails when the data are split.
    (tmp_path / "broken.yaml").write_text("data: {val_size: 100000}\n")
    sweep = ["sweep", "--configs", "broken.yaml", *configs, "--seeds", "1..2", *DIGITS]
    result = command(*sweep, "--workers", "2", "--trainer.max_epochs", "2")
    assert result.status == 1, result.err
    assert "6 trials: 4 finished, 2 failed" in result.out
    summaries = [run.summary() for run in run_directory.list_runs(ROOT)]
    finished = {run["val/accuracy"]: run for run in summaries if run.get("state") == "finished"}
    assert {run["epochs"] for run in finished.values()} == {2}  # the command overrides the files
    best, rest = sorted(finished)[2:], sorted(finished)[:2]
    for name, accuracies in (("good", best), ("bad", rest)):
        row = cells(result.out, name)
        tests = [finished[accuracy]["test/accuracy"] for accuracy in accuracies]
        assert row[1:4] == ["2", spread(accuracies), spread(tests)]
        assert {finished[accuracy]["seed"] for accuracy in accuracies} == {1, 2}
        for number in row[5].split(", "):
            assert Run(ROOT / f"version_{number}").summary()["val/accuracy"] in accuracies
    order = [result.out.index(f"│ {name} ") for name in ("good", "bad", "broken")]
    assert order == sorted(order)
    assert cells(result.out, "broken")[1] == "0 of 2"
    assert "failed: broken, seed 1, 2: status" in result.out


@pytest.mark.slow
def test_an_interrupted_comparison_continues_also_with_more_seeds(
    command: Command, configs: Sequence[str], tmp_path: Path
) -> None:
    sweep = ["sweep", "--configs", *configs, *DIGITS]
    process = start_process(tmp_path, *sweep, "--seeds", "1", "--trainer.max_epochs", "30")
    while not any(ROOT.glob("version_*/checkpoints/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 143, printed
    assert "1 trial: 1 to be continued" in printed
    result = command(*sweep, "--seeds", "1..2", "--trainer.max_epochs", "30", "--workers", "2")
    assert result.status == 0, result.err
    assert "4 trials, 1 of them started before, 2 in parallel" in result.out
    runs = list(run_directory.list_runs(ROOT))
    assert [run.summary()["epochs"] for run in runs] == [30] * 4
    assert sorted(run.summary()["seed"] for run in runs) == [1, 1, 2, 2]
    assert "resuming" in (ROOT / "sweeps" / "bad-good" / "trial_0.log").read_text()


@pytest.mark.slow
def test_fast_dev_run_tries_each_config_and_saves_nothing(
    command: Command, configs: Sequence[str], tmp_path: Path
) -> None:
    (tmp_path / "broken.yaml").write_text("data: {val_size: 100000}\n")
    before = sorted(tmp_path.iterdir())
    inline = '{"model": {"network": "TinyCNN"}}'
    dev_run = ["--seeds", "1..9", "--trainer.fast_dev_run", "2", *DIGITS]
    result = command("sweep", "--configs", "good.yaml", inline, *dev_run)
    assert result.status == 0, result.err
    assert re.search(r"^good: 2 batches worked", result.out, re.MULTILINE)
    assert f"{inline}: 2 batches worked" in result.out
    assert "2 of 2 trials worked, nothing is saved. Omit --trainer.fast_dev_run" in result.out
    result = command("sweep", "--configs", "broken.yaml", "good.yaml", *dev_run)
    assert result.status == 1
    assert re.search(r"^broken: failed: .*val_size", result.out, re.MULTILINE)
    assert "1 of 2 trials worked" in result.out
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_fast_dev_run_tries_one_trial_of_a_search(command: Command, sweep_folder: Path) -> None:
    before = sorted(sweep_folder.iterdir())
    result = command("sweep", "--space", "space.yaml", *SHORT, "--trainer.fast_dev_run", "1",
                     "--model.optimizer", "Adam")  # fmt: skip
    assert result.status == 0, result.err
    assert "lr 0.01: 1 batch worked" in result.out
    assert "1 of 1 trial worked, nothing is saved" in result.out
    assert sorted(sweep_folder.iterdir()) == before


def test_a_class_in_a_config_needs_consent(
    command: Command, configs: Sequence[str], tmp_path: Path
) -> None:
    (tmp_path / "evil.py").write_text("open('executed', 'w')\n")
    (tmp_path / "evil.yaml").write_text("model: {network: evil.Net}\n")
    result = command("sweep", "--configs", "good.yaml", "evil.yaml", *DIGITS)
    assert (result.status, "evil.Net" in result.err) == (2, True)
    assert not (tmp_path / "executed").exists()
    assert not ROOT.exists()
