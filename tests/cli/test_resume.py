"""resume, as typed: the same bits, the same folder, the same options."""

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
from tests.cli.checks import accuracy, assert_equal, load, logged
from tests.conftest import DIGITS, Command
from tests.processes import Place, run


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
def test_a_run_that_was_cut_short_and_resumed_ends_with_the_same_bits(
    command: Command, run_0: Run, schedule: list[str]
) -> None:
    whole = command("fit", *DIGITS, *schedule, "--trainer.max_epochs", "5")
    assert whole.status == 0, whole.err
    uninterrupted = load(run_0.recent())
    best = load(run_0.best)
    figures = logged(run_0)
    shutil.rmtree(run_0.folder)

    command("fit", *DIGITS, *schedule, "--trainer.max_epochs", "3")
    resumed = command("resume", "--trainer.max_epochs", "5")
    assert resumed.status == 0, resumed.err
    assert "after epoch 3" in resumed.out
    assert_equal(load(run_0.recent()), uninterrupted)
    assert_equal(load(run_0.best), best)
    assert accuracy(resumed.out) == accuracy(whole.out)
    assert logged(run_0) == figures


def test_fit_with_a_checkpoint_goes_on_in_the_same_folder(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    result = command(
        "fit", "--ckpt_path", str(run_0.recent()), *DIGITS, "--trainer.max_epochs", "2"
    )
    assert result.status == 0, result.err
    assert run_0.summary()["epochs"] == 2
    assert [run_0.folder] == list(run_0.folder.parent.iterdir())


def test_a_run_of_a_version_with_fewer_options_is_resumed(command: Command, run_0: Run) -> None:
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


def test_what_changes_the_training_is_refused_on_resume(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    before = run_0.recent().read_bytes()
    result = command("resume", "--model.optimizer.lr", "0.1", "--trainer.max_epochs", "2")
    assert result.status == 2
    assert "--model.optimizer.init_args.lr is 0.1 here, 0.001 in the checkpoint" in result.err
    assert run_0.recent().read_bytes() == before


def test_another_optimizer_on_resume_is_told_in_its_name_alone(command: Command) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    result = command("resume", "--model.optimizer", "SGD", "--trainer.max_epochs", "2")
    assert result.status == 2
    assert "--model.optimizer.class_path is torch.optim.SGD here, torch.optim.Adam in" in result.err
    assert "init_args" not in result.err


def test_a_schedule_over_the_whole_run_cannot_be_stretched(command: Command) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1", "--model.lr_scheduler", "OneCycle")
    result = command("resume", "--trainer.max_epochs", "2")
    assert result.status == 2
    assert "--trainer.max_epochs is 2 here, 1 in the checkpoint" in result.err


def test_resume_on_other_data_is_refused(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    checkpoint = load(run_0.recent())
    data = checkpoint["MNISTDataModule"]
    assert isinstance(data, dict)
    data["checksum"] = "0" * 64
    torch.save(checkpoint, run_0.recent())
    result = command("resume", "--trainer.max_epochs", "2")
    assert result.status == 1
    assert "trained on other data: checksum 0000" in result.err


@pytest.mark.parametrize(
    ("options", "longer"),
    [
        (["--trainer.max_epochs", "1"], "--trainer.max_epochs 2"),
        (["--trainer.max_steps", "20"], "--trainer.max_steps 40"),
        (["--trainer.max_epochs", "1", "--model.lr_scheduler", "OneCycle"], None),
    ],
)
def test_how_a_run_says_that_it_can_be_gone_on_with_is_how_it_can(
    command: Command, options: list[str], longer: str | None
) -> None:
    told = command("fit", *DIGITS, *options).out
    again = command("resume").out
    if longer is None:
        assert "mnist_lightning resume" not in told
        assert "its learning-rate schedule spanned them" in again
        return
    assert f"python -m mnist_lightning resume 0 {longer}\n" in told
    assert f"to continue: python -m mnist_lightning resume 0 {longer}\n" in again
    assert "resuming" in command("resume", "0", *longer.split()).out


def test_resume_of_a_finished_run_says_how_to_go_on(command: Command) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    result = command("resume")
    assert result.status == 0
    assert "is finished: 1 of 1 epochs" in result.out
    assert "resume 0 --trainer.max_epochs 2" in result.out


def test_resume_falls_back_to_the_newest_whole_checkpoint(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "3")
    content = bytearray(run_0.recent().read_bytes())
    content[1000] ^= 1
    run_0.recent().write_bytes(content)
    result = command("resume", "--trainer.max_epochs", "4")
    assert result.status == 0
    assert "last.ckpt is damaged: it does not match its digest; going back" in result.out
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


def test_an_extended_run_is_what_its_config_says(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    command("resume", "--trainer.max_epochs", "3")
    assert yaml.safe_load(run_0.config.read_text())["trainer"]["max_epochs"] == 3
    behind = command("resume", "--trainer.max_epochs", "2")
    assert behind.status == 0
    assert "is finished: 3 of 3 epochs" in behind.out


def test_what_a_run_was_tested_as_is_dropped_when_it_goes_on(
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
    assert "it has not been tested; python -m mnist_lightning test 0" in command("report", "0").out


def test_the_best_of_a_run_that_was_killed_is_known(tmp_path: Path) -> None:
    place = Place("mnist_lightning.training.lightning_module", "DigitClassifier.training_step", 30)
    run(["fit", *DIGITS], tmp_path, place)
    killed = Run(tmp_path / "lightning_logs" / "version_0")
    assert killed.summary()["state"] == "running"
    assert killed.summary()["val/accuracy"] is not None
    assert run(["test", "best"], tmp_path) == 0


def test_only_one_process_trains_in_a_folder(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    before = run_0.recent().read_bytes()
    with FileLock(run_0.folder / ".lock"):
        result = command("resume", "--trainer.max_epochs", "2")
    assert result.status == 1
    assert "another process is training in lightning_logs/version_0" in result.err
    assert run_0.recent().read_bytes() == before


def test_who_only_looks_keeps_nobody_from_training(tmp_path: Path) -> None:
    looks = FileLock(tmp_path / ".lock", thread_local=False)
    looks.acquire()
    Timer(0.2, looks.release).start()
    with pytest.raises(UserError, match="another process is training"), Run(tmp_path).lock(0):
        pass
    with Run(tmp_path).lock():
        assert not looks.is_locked


def test_a_signal_after_the_last_step_is_heard(
    command: Command, run_0: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told_to_end(self: RunSummary, *_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RunSummary, "on_train_end", told_to_end)
        result = command("fit", *DIGITS, "--trainer.max_epochs", "1", "--seeds", "1..3")
    assert result.status == 143
    assert "Interrupted. Saved through epoch 1 in lightning_logs/version_0." in result.out
    assert not run_0.folder.with_name("version_1").exists()
    assert command("resume").status == 0
    assert run_0.summary()["state"] == "finished"


def test_a_checkpoint_from_elsewhere_goes_on_in_a_new_run(
    command: Command, run_0: Run, tmp_path: Path
) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "2", "--model.optimizer.lr", "0.01")
    loose = tmp_path / "loose.ckpt"
    shutil.copy(run_0.recent(), loose)
    result = command("resume", str(loose), "--trainer.max_epochs", "3")
    assert result.status == 0, result.err
    assert "loose.ckpt is in no run directory: resuming" in result.out
    run_1 = Run(run_0.folder.with_name("version_1"))
    assert run_1.summary()["epochs"] == 3
    assert run_1.best.exists()
    assert run_0.summary()["epochs"] == 2


def test_somebody_s_own_network_trains_resumes_and_is_tested(
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
