"""Your own pictures, and data sets beside each other."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from mnist_lightning.data.datamodule import MNISTDataModule, SkippedWarning
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.data.image_folder import load_folder
from mnist_lightning.errors import UserError
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.runs.run_directory import Run
from tests.conftest import DIGITS, Command
from tests.images import draw_seven


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Sixty pictures of embedded digits, on paper, and what is no picture."""
    folder = tmp_path / "mine"
    data = SOURCES["digits"].load(Path())
    for index in range(60):
        place = folder / str(int(data.train_labels[index])) / "some" / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        ink = Image.fromarray(255 - data.train_images[index].numpy())
        ink.resize((140, 140), Image.Resampling.BICUBIC).save(place)
    (folder / "3" / ".hidden").write_text("not asked for")
    (folder / "notes").mkdir()
    (folder / "notes" / "drawn.png").write_bytes(b"not asked for either")
    return folder


def test_pictures_are_read_by_label_and_brought_to_mnist_s_form(mine: Path) -> None:
    data, _ = load_folder(mine, test_share=0.0)
    assert len(data.test_labels) == 0
    files = sorted(
        (path for path in mine.rglob("*.png") if path.parent.name == "some"),
        key=lambda path: (int(path.parts[-3]), str(path)),
    )
    assert data.train_labels.tolist() == [int(path.parts[-3]) for path in files]
    for file, picture in zip(files, data.train_images, strict=True):
        assert torch.equal(
            picture, torch.from_numpy(mnist_format.from_image(mnist_format.read(file)))
        )


def test_a_picture_stays_on_its_side_when_the_folder_grows(mine: Path) -> None:
    def sides() -> tuple[set[bytes], set[bytes]]:
        data, _ = load_folder(mine, test_share=0.3)
        parts = (data.train_images, data.test_images)
        train, test = ({picture.numpy().tobytes() for picture in part} for part in parts)
        return train, test

    train, test = sides()
    assert len(train) + len(test) == 60
    assert 8 <= len(test) <= 28
    for index, picture in enumerate(sorted(mine.glob("*/some/*.png"))):
        if index % 2:
            shutil.copy(picture, picture.with_name(f"copy_{picture.name}"))
    draw_seven().save(mine / "7" / "new.png")
    more_train, more_test = sides()
    assert train <= more_train
    assert test <= more_test
    assert not more_train & more_test


def test_what_cannot_be_read_is_named_and_skipped(mine: Path) -> None:
    (mine / "4" / "broken.png").write_bytes(b"no picture")
    Image.new("L", (40, 40), 255).save(mine / "5" / "blank.png")
    data, notice = load_folder(mine, test_share=0.5)
    assert notice is not None
    assert f"2 of 62 files in {mine} are skipped: 4/broken.png (not an image" in notice
    assert "5/blank.png (no digit" in notice
    module = MNISTDataModule(dataset="folder", folder=str(mine))
    with pytest.warns(SkippedWarning, match="2 of 62 files"):
        module.setup()
    assert len(data.train_labels) + len(data.test_labels) == 60


def test_a_folder_of_another_form_is_told(tmp_path: Path, mine: Path) -> None:
    for folder, said in (
        (tmp_path / "nowhere", "no such folder"),
        (mine / "notes", "contains no folder"),
        (mine.parent, "contains mine"),
    ):
        with pytest.raises(UserError, match=said):
            load_folder(folder, 0.1)
    (tmp_path / "empty" / "3").mkdir(parents=True)
    with pytest.raises(UserError, match="none of its files"):
        load_folder(tmp_path / "empty", 0.1)


def test_own_pictures_are_trained_on_resumed_and_tested(
    command: Command, mine: Path, run_0: Run
) -> None:
    own = ("--data.dataset", "folder", "--data.folder", str(mine))
    (mine / "4" / "broken.png").write_bytes(b"no picture")
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
    draw_seven().save(mine / "7" / "new.png")
    assert "trained on different data" in command("resume", "--trainer.max_epochs", "4").err


def test_both_the_folder_and_the_data_set_have_to_be_named(command: Command, mine: Path) -> None:
    for options in (("--data.folder", str(mine)), ("--data.dataset", "folder")):
        result = command("fit", *options)
        assert result.status == 2
        assert "own images need both --data.dataset folder and --data.folder DIR" in result.err
    everything = ("--data.dataset", "folder", "--data.folder", str(mine), "--data.test_share", "1")
    for extra in ((), ("--data.extra", "digits")):
        assert "folder has no training images" in command("fit", *everything, *extra).err


def test_a_further_data_set_has_its_share_and_every_image_is_seen() -> None:
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


def test_a_run_with_a_further_data_set_knows_both(command: Command, run_0: Run) -> None:
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
    assert "--data.extra digits adds nothing: it is the data set itself" in itself.out


def test_a_run_begins_with_another_s_weights(command: Command, run_0: Run) -> None:
    few = ("--trainer.max_epochs", "2", "--dashboards", "none")
    command("fit", *DIGITS, *few)
    begun = command(
        "fit",
        *DIGITS,
        *few,
        "--init_from",
        "0",
        "--model.optimizer.lr",
        "0",
        "--auto_resume",
        "true",
    )
    assert begun.status == 0, begun.err
    assert f"initial weights: {Path('lightning_logs/version_0')}" in begun.out
    run_1 = Run(run_0.folder.with_name("version_1"))
    first, second = run_0.summary(), run_1.summary()
    assert second["val/accuracy"] == first["val/accuracy"]
    assert second["test/correct"] == first["test/correct"]
    assert second["init_from"].startswith("lightning_logs/version_0/checkpoints/best.ckpt sha256:")
    assert "init_from" not in run_1.config.read_text()
    assert command("resume", "1", "--trainer.max_epochs", "3").status == 0
    assert run_1.summary()["init_from"] == second["init_from"]


def test_weights_of_another_network_are_refused(command: Command) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1", "--dashboards", "none")
    result = command("fit", *DIGITS, "--init_from", "0", "--model.network", "DigitNet")
    assert result.status == 2
    assert "--init_from: network mismatch" in result.err
    assert not Path("lightning_logs/version_1").exists()
    assert "run not found: 9" in command("fit", *DIGITS, "--init_from", "9").err
    both = command("fit", "--ckpt_path", "0", "--init_from", "0")
    assert "--ckpt_path resumes a run, --init_from starts a new one: give one" in both.err


def test_a_folder_s_facts_are_in_its_summary(command: Command, mine: Path, run_0: Run) -> None:
    own = (
        "--data.dataset",
        "folder",
        "--data.folder",
        str(mine),
        "--data.extra",
        "[digits, strokes]",
    )
    few = ("--trainer.max_epochs", "1", "--data.extra_share", "0.9")
    assert command("fit", *own, *few).status == 0
    assert json.loads((run_0.folder / "summary.json").read_text())["train_size"] > 3100
    assert command("report", "0").status == 0


def test_a_label_is_no_link(mine: Path, tmp_path: Path) -> None:
    (mine / "10").symlink_to(tmp_path)
    with pytest.raises(UserError, match="10 is a link"):
        load_folder(mine, test_share=0.0)


def test_labels_end_at_199(mine: Path) -> None:
    (mine / "257").mkdir()
    with pytest.raises(UserError, match="the largest allowed label is 199"):
        load_folder(mine, test_share=0.0)
