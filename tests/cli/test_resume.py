"""The command resume: the same bits, the same directory, the same options."""

import shutil
import signal
from pathlib import Path
from threading import Timer

import pytest
import torch
import yaml
from filelock import FileLock

from mnist_lightning.errors import UserError
from mnist_lightning.runs.checkpoint import dump_checkpoint, read_checkpoint
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.training.callbacks.prediction_collector import PredictionCollector
from mnist_lightning.training.callbacks.run_summary import RunSummary
from tests.cli.checks import assert_equal, load_checkpoint, printed_accuracy, read_logs
from tests.conftest import DIGITS, Command
from tests.processes import at_step, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "schedule",
    [
        ["--data.num_workers", "2"],
        ["--model.lr_scheduler", "StepLR", "--model.lr_scheduler.step_size", "2"],
        ["--model.lr_scheduler", "ReduceLROnPlateau", "--model.lr_scheduler.patience", "0"],
        ["--model.optimizer", "SGD", "--model.optimizer.lr", "0.1", "--data.val_size", "0"],
    ],
    ids=lambda options: options[1],
)
def test_an_interrupted_and_resumed_run_ends_with_the_same_bits(
    command: Command, run_0: Run, schedule: list[str]
) -> None:
    full = command("fit", *DIGITS, *schedule, "--trainer.max_epochs", "5")
    assert full.status == 0, full.err
    uninterrupted = load_checkpoint(run_0.recent())
    best = load_checkpoint(run_0.best)
    metrics = read_logs(run_0)
    shutil.rmtree(run_0.folder)

    command("fit", *DIGITS, *schedule, "--trainer.max_epochs", "3")
    resumed = command("resume", "--trainer.max_epochs", "5")
    assert resumed.status == 0, resumed.err
    assert "after epoch 3" in resumed.out
    assert_equal(load_checkpoint(run_0.recent()), uninterrupted)
    assert_equal(load_checkpoint(run_0.best), best)
    assert printed_accuracy(resumed.out) == printed_accuracy(full.out)
    assert read_logs(run_0) == metrics


def test_fit_with_a_checkpoint_continues_in_the_same_directory(
    command: Command, run_0: Run
) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    result = command(
        "fit", "--ckpt_path", str(run_0.recent()), *DIGITS, "--trainer.max_epochs", "2"
    )
    assert result.status == 0, result.err
    assert run_0.summary()["epochs"] == 2
    assert [run_0.folder] == list(run_0.folder.parent.iterdir())


def test_a_run_of_an_earlier_version_with_fewer_options_is_resumed(
    command: Command, run_0: Run
) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    checkpoint = read_checkpoint(run_0.recent())
    for config in (checkpoint["config"], earlier := run_0.read_config()):
        del config["data"]["extra_share"], config["model"]["network"]["init_args"]["dropout"]
    run_0.recent().write_bytes(dump_checkpoint(checkpoint))
    run_0.write_config(earlier)
    resumed = command("resume", "--trainer.max_epochs", "2")
    assert resumed.status == 0, resumed.err
    assert run_0.summary()["epochs"] == 2
    other = command("resume", "--trainer.max_epochs", "3", "--data.extra_share", "0.2")
    assert "--data.extra_share is 0.2 here, 0.1 in the checkpoint" in other.err


def test_options_that_change_the_training_are_refused_on_resume(
    command: Command, run_0: Run
) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    before = run_0.recent().read_bytes()
    result = command("resume", "--model.optimizer.lr", "0.1", "--trainer.max_epochs", "2")
    assert result.status == 2
    assert "--model.optimizer.init_args.lr is 0.1 here, 0.001 in the checkpoint" in result.err
    assert run_0.recent().read_bytes() == before


def test_another_optimizer_on_resume_is_reported_by_its_name_only(command: Command) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    result = command("resume", "--model.optimizer", "SGD", "--trainer.max_epochs", "2")
    assert result.status == 2
    assert "--model.optimizer.class_path is torch.optim.SGD here, torch.optim.Adam in" in result.err
    assert "init_args" not in result.err


def test_a_schedule_over_the_whole_run_cannot_be_extended(command: Command) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1", "--model.lr_scheduler", "OneCycle")
    result = command("resume", "--trainer.max_epochs", "2")
    assert result.status == 2
    assert "--trainer.max_epochs is 2 here, 1 in the checkpoint" in result.err


def test_resume_on_other_data_is_refused(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    checkpoint = load_checkpoint(run_0.recent())
    data = checkpoint["MNISTDataModule"]
    assert isinstance(data, dict)
    data["checksum"] = "0" * 64
    torch.save(checkpoint, run_0.recent())
    result = command("resume", "--trainer.max_epochs", "2")
    assert result.status == 1
    assert "trained on different data: checksum was 0000" in result.err


@pytest.mark.parametrize(
    ("options", "longer"),
    [
        (["--trainer.max_epochs", "1"], "--trainer.max_epochs 2"),
        (["--trainer.max_steps", "20"], "--trainer.max_steps 40"),
        (["--trainer.max_epochs", "1", "--model.lr_scheduler", "OneCycle"], None),
    ],
)
def test_a_finished_run_suggests_an_option_that_extends_it(
    command: Command, options: list[str], longer: str | None
) -> None:
    fitted = command("fit", *DIGITS, *options).out
    again = command("resume").out
    if longer is None:
        assert "mnist_lightning resume" not in fitted
        assert "the learning-rate schedule ends here" in again
        return
    assert f"python -m mnist_lightning resume 0 {longer}\n" in fitted
    assert f"to continue: python -m mnist_lightning resume 0 {longer}\n" in again
    assert "resuming" in command("resume", "0", *longer.split()).out


def test_resume_of_a_finished_run_says_how_to_extend_it(command: Command) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    result = command("resume")
    assert result.status == 0
    assert "is finished: 1 of 1 epochs" in result.out
    assert "resume 0 --trainer.max_epochs 2" in result.out


def test_resume_falls_back_to_the_newest_intact_checkpoint(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "3")
    content = bytearray(run_0.recent().read_bytes())
    content[1000] ^= 1
    run_0.recent().write_bytes(content)
    result = command("resume", "--trainer.max_epochs", "4")
    assert result.status == 0
    assert "last.ckpt is damaged: it does not match its digest; using" in result.out
    assert "after epoch 2" in result.out


def test_a_run_killed_before_its_test_is_tested_on_resume(
    command: Command, run_0: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(PredictionCollector, "on_test_batch_end", killed)
        assert command("fit", *DIGITS, "--trainer.max_epochs", "2").status == 1
    assert run_0.summary()["state"] == "failed"
    result = command("resume")
    assert result.status == 0, result.err
    summary = run_0.summary()
    assert (summary["state"], summary["epochs"], summary["test/total"]) == ("finished", 2, 297)


def test_the_config_of_an_extended_run_has_the_new_length(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    command("resume", "--trainer.max_epochs", "3")
    assert yaml.safe_load(run_0.config.read_text())["trainer"]["max_epochs"] == 3
    behind = command("resume", "--trainer.max_epochs", "2")
    assert behind.status == 0
    assert "is finished: 3 of 3 epochs" in behind.out


def test_old_test_results_are_removed_when_a_run_is_extended(
    command: Command, run_0: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "2")
    before = run_0.summary()["val/accuracy"]
    with monkeypatch.context() as patch:
        patch.setattr(PredictionCollector, "on_test_batch_end", lambda *_: 1 / 0)
        assert command("resume", "--trainer.max_epochs", "5").status == 1
    assert not run_0.predictions.exists()
    summary = run_0.summary()
    assert "test/accuracy" not in summary
    assert summary["best_epoch"] > 2
    assert summary["val/accuracy"] > before
    assert (
        "the run has not been tested; python -m mnist_lightning test 0"
        in command("report", "0").out
    )


def test_the_best_checkpoint_of_a_killed_run_is_recorded(tmp_path: Path) -> None:
    run(["fit", *DIGITS], tmp_path, at_step(30))
    killed = Run(tmp_path / "lightning_logs" / "version_0")
    assert killed.summary()["state"] == "running"
    assert killed.summary()["val/accuracy"] is not None
    assert run(["test", "best"], tmp_path) == 0


def test_only_one_process_trains_in_a_directory(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    before = run_0.recent().read_bytes()
    with FileLock(run_0.folder / ".lock"):
        result = command("resume", "--trainer.max_epochs", "2")
    assert result.status == 1
    assert "another process is training in lightning_logs/version_0" in result.err
    assert run_0.recent().read_bytes() == before


def test_a_short_lock_of_a_reader_does_not_prevent_training(tmp_path: Path) -> None:
    reader = FileLock(tmp_path / ".lock", thread_local=False)
    reader.acquire()
    Timer(0.2, reader.release).start()
    with pytest.raises(UserError, match="another process is training"), Run(tmp_path).lock(0):
        pass
    with Run(tmp_path).lock():
        assert not reader.is_locked


def test_a_signal_after_the_last_step_ends_the_run(
    command: Command, run_0: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send_signal(self: RunSummary, *_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RunSummary, "on_train_end", send_signal)
        result = command("fit", *DIGITS, "--trainer.max_epochs", "1", "--seeds", "1..3")
    assert result.status == 143
    assert "Interrupted. Saved through epoch 1 in lightning_logs/version_0." in result.out
    assert not run_0.folder.with_name("version_1").exists()
    assert command("resume").status == 0
    assert run_0.summary()["state"] == "finished"


def test_a_checkpoint_outside_a_run_directory_continues_in_a_new_run(
    command: Command, run_0: Run, tmp_path: Path
) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "2", "--model.optimizer.lr", "0.01")
    loose = tmp_path / "loose.ckpt"
    shutil.copy(run_0.recent(), loose)
    result = command("resume", str(loose), "--trainer.max_epochs", "3")
    assert result.status == 0, result.err
    assert "loose.ckpt is not in a run directory; resuming" in result.out
    run_1 = Run(run_0.folder.with_name("version_1"))
    assert run_1.summary()["epochs"] == 3
    assert run_1.best.exists()
    assert run_0.summary()["epochs"] == 2


def test_a_user_s_own_network_is_trained_resumed_and_tested(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Mine(nn.Module):\n"
        "    def __init__(self, dropout: float = 0.1):\n"
        "        super().__init__()\n"
        "        self.dropout = nn.Dropout(dropout)\n"
        "        self.layer = nn.Linear(784, 10)\n"
        "    def forward(self, images):\n"
        "        return self.layer(self.dropout(images.flatten(1)))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    network = ["--model.network", "mine.Mine", "--model.network.dropout", "0.2"]
    assert command("fit", *DIGITS, *network, "--trainer.max_epochs", "1").status == 0
    assert command("resume", "--trainer.max_epochs", "2").status == 0
    assert command("test", "0").status == 0
