"""Data sets of own images, and additional data sets."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.data.image_folder import load_folder
from mnist_lightning.data.reader import SkippedWarning
from mnist_lightning.errors import UserError
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.runs.run_directory import Run
from tests.conftest import DIGITS, Command
from tests.images import draw_seven


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Return a folder with 60 images of the bundled digits, and other files."""
    folder = tmp_path / "mine"
    data = SOURCES["digits"].load(Path())
    for index in range(60):
        place = folder / str(int(data.train_labels[index])) / "some" / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        ink = Image.fromarray(255 - data.train_images[index].numpy())
        ink.resize((140, 140), Image.Resampling.BICUBIC).save(place)
    (folder / "3" / ".hidden").write_text("ignored")
    (folder / "notes").mkdir()
    (folder / "notes" / "drawn.png").write_bytes(b"ignored, too")
    return folder


def test_images_are_labeled_by_folder_and_converted_to_mnist_s_format(image_folder: Path) -> None:
    data, _ = load_folder(image_folder, test_share=0.0)
    assert len(data.test_labels) == 0
    files = sorted(
        (path for path in image_folder.rglob("*.png") if path.parent.name == "some"),
        key=lambda path: (int(path.parts[-3]), str(path)),
    )
    assert data.train_labels.tolist() == [int(path.parts[-3]) for path in files]
    for file, picture in zip(files, data.train_images, strict=True):
        assert torch.equal(
            picture, torch.from_numpy(mnist_format.from_image(mnist_format.read(file)))
        )


def test_an_image_stays_in_its_part_when_images_are_added(image_folder: Path) -> None:
    def read_parts() -> tuple[set[bytes], set[bytes]]:
        data, _ = load_folder(image_folder, test_share=0.3)
        parts = (data.train_images, data.test_images)
        train, test = ({picture.numpy().tobytes() for picture in part} for part in parts)
        return train, test

    train, test = read_parts()
    assert len(train) + len(test) == 60
    assert 8 <= len(test) <= 28
    for index, picture in enumerate(sorted(image_folder.glob("*/some/*.png"))):
        if index % 2:
            shutil.copy(picture, picture.with_name(f"copy_{picture.name}"))
    draw_seven().save(image_folder / "7" / "new.png")
    more_train, more_test = read_parts()
    assert train <= more_train
    assert test <= more_test
    assert not more_train & more_test


def test_unreadable_files_are_reported_and_skipped(image_folder: Path) -> None:
    (image_folder / "4" / "broken.png").write_bytes(b"no picture")
    Image.new("L", (40, 40), 255).save(image_folder / "5" / "blank.png")
    data, notice = load_folder(image_folder, test_share=0.5)
    assert notice is not None
    assert f"2 of 62 files in {image_folder} are skipped: 4/broken.png (not an image" in notice
    assert "5/blank.png (no digit" in notice
    module = MNISTDataModule(dataset="folder", folder=str(image_folder))
    with pytest.warns(SkippedWarning, match="2 of 62 files"):
        module.setup()
    assert len(data.train_labels) + len(data.test_labels) == 60


def test_a_folder_with_another_structure_is_reported(tmp_path: Path, image_folder: Path) -> None:
    for folder, message in (
        (tmp_path / "nowhere", "no such folder"),
        (image_folder / "notes", "contains no folder"),
        (image_folder.parent, "contains mine"),
    ):
        with pytest.raises(UserError, match=message):
            load_folder(folder, 0.1)
    (tmp_path / "empty" / "3").mkdir(parents=True)
    with pytest.raises(UserError, match="no file is an image"):
        load_folder(tmp_path / "empty", 0.1)


def test_a_run_on_own_images_is_trained_resumed_and_tested(
    command: Command, image_folder: Path, run_0: Run
) -> None:
    own = ("--data.dataset", "folder", "--data.folder", str(image_folder))
    (image_folder / "4" / "broken.png").write_bytes(b"no picture")
    result = command("fit", *own, "--trainer.max_epochs", "2")
    assert result.status == 0
    assert "1 of 61 files" in result.out
    summary = run_0.summary()
    assert summary["dataset"] == "folder"
    assert summary["train_size"] + summary["val_size"] + summary["test/total"] == 60
    assert command("resume", "--trainer.max_epochs", "3").status == 0
    assert command("test", "last").status == 0
    everything = command("test", "last", *own, "--data.test_share", "1")
    assert "of 60" in everything.out
    assert "of 297" in command("test", "last", *DIGITS).out
    draw_seven().save(image_folder / "7" / "new.png")
    assert "trained on different data" in command("resume", "--trainer.max_epochs", "4").err


def test_folder_and_data_set_must_be_given_together(command: Command, image_folder: Path) -> None:
    for options in (("--data.folder", str(image_folder)), ("--data.dataset", "folder")):
        result = command("fit", *options)
        assert result.status == 2
        assert "own images need both --data.dataset folder and --data.folder DIR" in result.err
    everything = (
        "--data.dataset",
        "folder",
        "--data.folder",
        str(image_folder),
        "--data.test_share",
        "1",
    )
    for extra in ((), ("--data.extra", "digits")):
        assert "folder has no training images" in command("fit", *everything, *extra).err


@pytest.mark.slow
def test_an_additional_data_set_has_its_share_and_every_image_is_used() -> None:
    for share in (0.1, 0.5, 0.9):
        data = MNISTDataModule(dataset="digits", extra="strokes", extra_share=share)
        data.prepare_data()
        data.setup()
        own = len(SOURCES["digits"].load(Path()).train_labels)
        indices, held = data.train_indices, data.val_indices
        assert (indices >= own).float().mean() == pytest.approx(share, abs=0.001)
        assert not set(indices.tolist()) & set(held.tolist())
        assert set(indices.tolist()) | set(held.tolist()) == set(range(len(data.data.train_labels)))
        assert (held >= own).sum() == 200
        assert len(data.data.test_labels) == 297
    images_of, labels = next(iter(data.train_dataloader()))
    assert images_of.shape == (100, 1, 28, 28)
    assert labels.dtype == torch.int64


def test_a_run_with_an_additional_data_set_stores_both_checksums(
    command: Command, run_0: Run
) -> None:
    both = ("--data.extra", "strokes", "--data.augment+=NoDigit", "--data.augment+=Deformation")
    result = command("fit", *DIGITS, *both, "--trainer.max_epochs", "1")
    assert "digits and strokes: " in result.out
    summary = run_0.summary()
    assert summary["dataset"] == "digits"
    assert summary["checksum"] == SOURCES["digits"].load(Path()).checksum
    assert summary["extra_checksums"] == {"strokes": SOURCES["strokes"].load(Path()).checksum}
    assert command("resume", "--trainer.max_epochs", "2").status == 0
    assert command("validate", "0").status == 0
    assert command("report", "0").status == 0
    itself = command("fit", *DIGITS, "--data.extra", "digits", "--trainer.max_epochs", "1")
    assert "--data.extra digits has no effect: --data.dataset is the same" in itself.out


def test_init_from_starts_with_the_weights_of_another_run(command: Command, run_0: Run) -> None:
    short = ("--trainer.max_epochs", "2", "--dashboards", "none")
    command("fit", *DIGITS, *short)
    result = command(
        "fit",
        *DIGITS,
        *short,
        "--init_from",
        "0",
        "--model.optimizer.lr",
        "0",
        "--auto_resume",
        "true",
    )
    assert result.status == 0, result.err
    assert f"initial weights: {Path('lightning_logs/version_0')}" in result.out
    run_1 = Run(run_0.folder.with_name("version_1"))
    first, second = run_0.summary(), run_1.summary()
    assert second["val/accuracy"] == first["val/accuracy"]
    assert second["test/correct"] == first["test/correct"]
    assert second["init_from"].startswith("lightning_logs/version_0/checkpoints/best.ckpt sha256:")
    assert "init_from" not in run_1.config.read_text()
    assert command("resume", "1", "--trainer.max_epochs", "3").status == 0
    assert run_1.summary()["init_from"] == second["init_from"]


def test_init_from_rejects_the_weights_of_another_network(command: Command) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1", "--dashboards", "none")
    result = command("fit", *DIGITS, "--init_from", "0", "--model.network", "DigitNet")
    assert result.status == 2
    assert "--init_from: network mismatch" in result.err
    assert not Path("lightning_logs/version_1").exists()
    assert "run not found: 9" in command("fit", *DIGITS, "--init_from", "9").err
    both = command("fit", "--ckpt_path", "0", "--init_from", "0")
    assert "--ckpt_path resumes a run, --init_from starts a new run: give only one" in both.err


def test_the_summary_of_a_run_on_a_folder_has_its_sizes(
    command: Command, image_folder: Path, run_0: Run
) -> None:
    own = (
        "--data.dataset",
        "folder",
        "--data.folder",
        str(image_folder),
        "--data.extra",
        "[digits, strokes]",
    )
    short = ("--trainer.max_epochs", "1", "--data.extra_share", "0.9")
    assert command("fit", *own, *short).status == 0
    assert json.loads((run_0.folder / "summary.json").read_text())["train_size"] > 3100
    assert command("report", "0").status == 0


def test_a_link_as_a_label_is_rejected(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "10").symlink_to(tmp_path)
    with pytest.raises(UserError, match="10 is a symbolic link"):
        load_folder(image_folder, test_share=0.0)


def test_labels_above_199_are_rejected(image_folder: Path) -> None:
    (image_folder / "257").mkdir()
    with pytest.raises(UserError, match="the largest allowed label is 199"):
        load_folder(image_folder, test_share=0.0)


def test_with_validation_on_additional_data_only_every_own_image_is_for_training(
    image_folder: Path,
) -> None:
    shutil.rmtree(image_folder / "notes")  # it would be reported
    data = MNISTDataModule(
        dataset="folder",
        folder=str(image_folder),
        test_share=0,
        extra=["digits", "strokes"],
        extra_share=0.9,
        val_extra_only=True,
        split_seed=4,
    )
    data.setup()
    assert set(range(60)) <= set(data.train_indices.tolist())
    assert (data.val_indices >= 60).all()
    assert len(data.val_indices) == 200 + 200
    usual = MNISTDataModule(dataset="digits", split_seed=4)
    usual.setup()
    assert torch.equal(data.val_indices[:200] - 60, usual.val_indices)


def test_validation_on_additional_data_only_needs_such_data() -> None:
    for others in ({}, {"extra": "strokes", "val_size": 100}):
        with pytest.raises(ValueError, match=r"val_extra_only needs --data\.extra"):
            MNISTDataModule(dataset="digits", val_extra_only=True, **others)  # type: ignore[arg-type]


def test_a_single_image_can_be_learned(command: Command, run_0: Run, tmp_path: Path) -> None:
    (tmp_path / "mine" / "7").mkdir(parents=True)
    draw_seven().save(tmp_path / "mine" / "7" / "seven.png")
    options = ["--data.dataset", "folder", "--data.folder", "mine", "--data.test_share", "0"]
    options += ["--data.val_extra_only", "true", "--data.extra", "digits"]
    options += ["--data.extra_share", "0.99", "--model.network", "TinyCNN"]
    options += ["--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "3"]
    assert command("fit", *options).status == 0
    summary = run_0.summary()
    assert (summary["best_epoch"], summary["val_size"], summary["test_size"]) == (3, 200, 0)
    assert "min_digit" in summary  # calibrated on the bundled digits
