"""--seeds and --auto_resume: several runs of one experiment, or one run continued."""

import re
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest

from mnist_lightning.cli.session import train_and_show
from mnist_lightning.runs.run_directory import Run
from tests.cli.checks import assert_equal, load_checkpoint
from tests.conftest import DIGITS, Command

pytestmark = pytest.mark.slow


def test_each_seed_is_an_ordinary_run_and_the_spread_is_reported(
    command: Command, run_0: Run
) -> None:
    result = command("fit", *DIGITS, "--trainer.max_epochs", "2", "--seeds", "7,1..2")
    assert result.status == 0, result.err
    runs = [run_0, *(Run(run_0.folder.with_name(f"version_{n}")) for n in (1, 2))]
    assert [run.summary()["seed"] for run in runs] == [7, 1, 2]
    for stage in ("val", "test"):
        values = [100 * run.summary()[f"{stage}/accuracy"] for run in runs]
        mean, std = statistics.fmean(values), statistics.stdev(values)
        # Student's t for two degrees of freedom: 4.303 (any table of it).
        low, high = mean - 4.303 * std / 3**0.5, mean + 4.303 * std / 3**0.5
        assert (
            f"{stage} accuracy: {mean:.2f} ± {std:.2f} % (mean ± standard deviation of 3 seeds), "
            f"95 % interval of the mean {low:.2f} to {min(high, 100):.2f} %"
        ) in result.out

    alone = command("fit", *DIGITS, "--trainer.max_epochs", "2", "--seed_everything", "2")
    assert alone.status == 0
    run_3 = Run(run_0.folder.with_name("version_3"))
    assert_equal(load_checkpoint(run_3.recent()), load_checkpoint(runs[2].recent()))
    again = command("fit", "--config", str(runs[1].config))
    assert again.status == 0
    run_4 = Run(run_0.folder.with_name("version_4"))
    assert_equal(load_checkpoint(run_4.best), load_checkpoint(runs[1].best))


def test_the_spread_of_one_seed_is_unknown(command: Command) -> None:
    result = command("fit", *DIGITS, "--trainer.max_epochs", "1", "--seeds", "5")
    assert "one run, with the seed 5; for several: --seeds 1..5" in result.out
    assert "% with one seed; the spread is unknown" in result.out


def test_auto_resume_continues_the_newest_run_with_the_same_options(
    command: Command, run_0: Run, tmp_path: Path
) -> None:
    options = [*DIGITS, "--auto_resume", "true"]
    first = command("fit", *options, "--trainer.max_epochs", "1")
    assert "No matching run to resume; starting a new one." in first.out
    other = command("fit", *options, "--trainer.max_epochs", "1", "--data.batch_size", "50")
    assert "No matching run to resume" in other.out
    second = command("fit", *options, "--trainer.max_epochs", "2")
    assert second.status == 0, second.err
    assert "resuming lightning_logs/version_0 after epoch 1" in second.out
    assert run_0.summary()["epochs"] == 2
    finished = command("fit", *options, "--trainer.max_epochs", "2")
    assert "lightning_logs/version_0 is finished: 2 of 2 epochs" in finished.out
    assert len(list((tmp_path / "lightning_logs").iterdir())) == 2


def test_auto_resume_does_not_extend_a_schedule_over_the_whole_run(command: Command) -> None:
    options = [*DIGITS, "--auto_resume", "true", "--model.lr_scheduler", "OneCycle"]
    command("fit", *options, "--trainer.max_epochs", "1")
    longer = command("fit", *options, "--trainer.max_epochs", "2")
    assert longer.status == 0, longer.err
    assert "No matching run to resume" in longer.out


def test_seeds_with_auto_resume_continue_an_interrupted_study(
    command: Command, tmp_path: Path
) -> None:
    study = [*DIGITS, "--auto_resume", "true", "--trainer.max_epochs", "2"]
    command("fit", *study, "--seeds", "1")
    result = command("fit", *study, "--seeds", "1..2")
    assert result.status == 0, result.err
    assert "version_0 is finished" in result.out
    assert re.search(r"mean ± standard deviation of 2 seeds", result.out)
    assert len(list((tmp_path / "lightning_logs").iterdir())) == 2


def test_an_interrupt_ends_the_seeds_and_reports_the_completed_ones(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(["first", "second"])

    def interrupt_at_second_call(*arguments: Any, **options: Any) -> int:
        return train_and_show(*arguments, **options) if next(calls) == "first" else 130

    monkeypatch.setattr("mnist_lightning.cli.fit.train_and_show", interrupt_at_second_call)
    result = command("fit", *DIGITS, "--trainer.max_epochs", "1", "--seeds", "1..3")
    assert result.status == 130
    assert "% with one seed" in result.out


def test_seeds_of_another_length_are_not_counted(command: Command, tmp_path: Path) -> None:
    study = ["fit", *DIGITS, "--auto_resume", "true"]
    command(*study, "--trainer.max_epochs", "2", "--seeds", "1")
    result = command(*study, "--trainer.max_epochs", "1", "--seeds", "1")
    assert "No matching run to resume" in result.out
    command(*study, "--trainer.max_epochs", "1", "--trainer.limit_test_batches", "0")
    assert len(list((tmp_path / "lightning_logs").iterdir())) == 3


def test_a_damaged_old_run_is_skipped(command: Command, run_0: Run) -> None:
    options = ["fit", *DIGITS, "--auto_resume", "true", "--trainer.max_epochs", "1"]
    command(*options)
    config = run_0.config.read_text()
    for damage in ("foo: [", "", "a text"):
        run_0.config.write_text(damage)
        result = command(*options)
        assert result.status == 0, result.err
        assert "skipped lightning_logs/version_0: " in result.out
        shutil.rmtree(run_0.folder.with_name("version_1"))
    run_0.config.write_text(config)
    for path in run_0.checkpoints.glob("last*"):
        path.write_bytes(b"")
    result = command(*options)
    assert result.status == 0, result.err
    assert "skipped lightning_logs/version_0: no intact checkpoint" in result.out


def test_an_error_at_the_second_seed_reports_the_first(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(["first", "second"])

    def fail_at_second_call(*arguments: Any, **options: Any) -> int:
        if next(calls) == "second":
            raise OSError(28, "No space left on device")
        return train_and_show(*arguments, **options)

    monkeypatch.setattr("mnist_lightning.cli.fit.train_and_show", fail_at_second_call)
    result = command("fit", *DIGITS, "--trainer.max_epochs", "1", "--seeds", "1..3")
    assert result.status == 1
    assert "% with one seed" in result.out
