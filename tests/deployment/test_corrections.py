"""The directory of corrected digits."""

import os
from pathlib import Path

import numpy as np
import pytest

from mnist_lightning.data.image_folder import load_folder
from mnist_lightning.deployment import corrections
from mnist_lightning.deployment.corrections import (
    count_corrections,
    list_corrections,
    remove_correction,
    save_correction,
)
from mnist_lightning.deployment.problems import ProblemError
from mnist_lightning.preprocessing.mnist_format import DigitImage, find_digits
from tests.images import draw_seven


def drawing(width: int = 10) -> DigitImage:
    return find_digits(draw_seven(width=width), False)[0]


def test_a_new_label_replaces_the_earlier_one_of_the_same_image(tmp_path: Path) -> None:
    for label in (1, 7):
        save_correction(tmp_path, label, drawing())
    save_correction(tmp_path, 1, drawing(width=14))
    data, _ = load_folder(tmp_path, test_share=0)
    assert data.train_labels.tolist() == [1, 7]
    assert np.array_equal(data.train_images[1].numpy(), drawing().ink)
    assert count_corrections(tmp_path) == 2


def test_the_newest_images_come_first(tmp_path: Path) -> None:
    for number, width in enumerate((6, 8, 10, 12)):
        kept = save_correction(tmp_path, number, drawing(width))
        os.utime(tmp_path / kept, (number, number))
    assert [each.label for each in list_corrections(tmp_path).newest] == [3, 2, 1, 0]


def test_images_of_the_user_count_but_are_not_listed(tmp_path: Path) -> None:
    save_correction(tmp_path, 7, drawing())
    draw_seven().save(tmp_path / "7" / "mine.png")
    listed = list_corrections(tmp_path)
    assert (listed.total, len(listed.newest)) == (2, 1)


def test_only_images_that_the_server_has_saved_can_be_removed(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    kept = save_correction(folder, 7, drawing())
    draw_seven().save(folder / "7" / "mine.png")
    (tmp_path / "secret.png").write_text("secret")
    (folder / "7" / f"{'0' * 16}.png").mkdir()
    unknown = ["", "7", "7/mine.png", "../secret.png", "7/../../secret.png", f"7/{'0' * 16}.png"]
    unknown += [f"{kept}\n", f"./{kept}", f"7/{'1' * 16}.png", str(folder / kept)]
    for name in unknown:
        with pytest.raises(ProblemError) as raised:
            remove_correction(folder, name)
        assert raised.value.status == 404
    assert count_corrections(folder) == 2
    remove_correction(folder, kept)
    assert count_corrections(folder) == 1
    assert (tmp_path / "secret.png").exists()


def test_nothing_is_changed_through_a_link(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "kept", tmp_path / "elsewhere"
    kept = save_correction(elsewhere, 7, drawing())
    folder.mkdir()
    (folder / "7").symlink_to(elsewhere / "7")
    with pytest.raises(ProblemError, match="symbolic link"):
        save_correction(folder, 7, drawing())
    save_correction(folder, 1, drawing())
    with pytest.raises(ProblemError, match="no such"):
        remove_correction(folder, kept)
    assert (elsewhere / kept).is_file()
    assert count_corrections(folder) == 1


def test_files_that_are_no_images_are_not_read(tmp_path: Path) -> None:
    save_correction(tmp_path, 7, drawing())
    strange = tmp_path / "5"
    strange.mkdir()
    os.mkfifo(strange / f"{'a' * 16}.png")  # reading it would wait for ever
    (strange / f"{'b' * 16}.png").write_bytes(bytes(corrections.MAX_BYTES + 1))
    (strange / f"{'c' * 16}.png").symlink_to("/dev/zero")
    (strange / ".hidden").write_text("ignored")
    (tmp_path / "6").write_text("a file")
    listed = list_corrections(tmp_path)
    assert [each.label for each in listed.newest] == [7]


def test_the_number_of_images_with_a_label_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corrections, "MAX_CORRECTIONS", 2)
    for width in (6, 8):
        save_correction(tmp_path, 7, drawing(width))
    with pytest.raises(ProblemError, match="limit reached: 2 images with label 7"):
        save_correction(tmp_path, 7, drawing(10))


def test_a_missing_directory_is_empty(tmp_path: Path) -> None:
    assert count_corrections(tmp_path / "missing") == 0
    assert list_corrections(tmp_path / "missing").newest == []
