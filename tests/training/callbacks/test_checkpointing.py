"""The checkpoints of a run."""

import shutil
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from mnist_lightning.runs.checkpoint import read_checkpoint
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.training.callbacks.checkpointing import remove_later_checkpoints
from tests.conftest import DIGITS, AddRun, Command


def test_later_checkpoints_of_two_callbacks_in_one_folder_are_removed(
    add_run: AddRun, run_0: Run, tmp_path: Path
) -> None:
    add_run(*DIGITS, "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2")
    folder = tmp_path / "saved"
    folder.mkdir()
    for name in ("step=2.ckpt", "best.ckpt"):
        shutil.copy(run_0.best, folder / name)
    callbacks = [ModelCheckpoint(folder, every_n_train_steps=count) for count in (1, 2)]
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[*callbacks])
    remove_later_checkpoints(trainer, 2)
    assert len(list(folder.iterdir())) == 2
    remove_later_checkpoints(trainer, 1)
    assert [path.name for path in folder.iterdir()] == ["best.ckpt"]  # a reserved name


def test_the_best_or_the_last_epoch_is_kept_and_tested(command: Command, tmp_path: Path) -> None:
    # The learning rate grows until the training diverges: the first epoch is the best one.
    growing = ["--model.lr_scheduler", "ExponentialLR", "--model.lr_scheduler.gamma", "1000"]
    options = [*DIGITS, "--trainer.max_epochs", "2", *growing]
    accuracies = []
    for name, epoch, words in [("best", 1, "1 of 2, by val/"), ("last", 2, "2 of 2, the last ep")]:
        run = Run(tmp_path / name)
        result = command("fit", *options, "--tested_epoch", name, "--run_dir", str(run.folder))
        assert words in result.out
        assert read_checkpoint(run.best)["epoch"] == epoch
        facts = run.summary()
        assert (facts["best_epoch"], facts["tested_epoch"]) == (epoch, name)
        accuracies.append((facts["val/accuracy"], facts["test/accuracy"]))
    assert accuracies[0] > accuracies[1]
