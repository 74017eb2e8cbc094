"""The checkpoints of a run."""

import shutil
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from mnist_lightning.runs.run_directory import Run
from mnist_lightning.training.callbacks.checkpointing import remove_later_checkpoints
from tests.conftest import DIGITS, AddRun


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
