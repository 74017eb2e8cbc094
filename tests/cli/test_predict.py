"""The command predict."""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_lightning import load
from mnist_lightning.cli import predict_reader
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import confidence
from tests.conftest import DIGITS, AddRun, Command
from tests.images import draw_seven, gives_seven


@pytest.fixture
def trained_cli(command: Command, add_run: AddRun) -> Command:
    """A command in a directory with a run, and images in `pictures`."""
    add_run(*DIGITS, "--trainer.max_epochs", "4")
    Path("pictures", "deeper").mkdir(parents=True)
    draw_seven().save("pictures/seven.png")
    draw_seven(paper=20, ink=240).save("pictures/deeper/chalk.jpg")
    Path("pictures/notes.txt").write_text("not an image")
    return command


def test_each_file_gets_a_line_with_digit_confidence_and_runner_up(
    trained_cli: Command, run_0: Run
) -> None:
    result = trained_cli("predict", "pictures/seven.png", "--run", "last")
    assert result.status == 0, result.err
    recognizer = load(run_0.folder)
    (reading,) = recognizer.read("pictures/seven.png")
    first, second = reading.ranks[:2]
    # Every way to read an image gives the same calibrated probabilities.
    predicted = recognizer.predict("pictures/seven.png")
    assert predicted.probabilities == pytest.approx(reading.probabilities, abs=1e-6)
    words = result.out.split()
    if reading.not_digit:
        assert words[:5] == ["pictures/seven.png", "?", "probably", "not", "a"]
        return
    assert words[:4] == ["pictures/seven.png", str(first), *confidence(reading.confidence).split()]
    assert words[4:6] == ["then", str(second)]
    assert ("unsure" in words) == (reading.confidence < 0.8)


def test_folders_and_patterns_are_expanded(trained_cli: Command) -> None:
    for argument in ("pictures", "pictures/**/*.[pj]*g"):
        rows = json.loads(trained_cli("predict", argument, "--run", "0", "--json").out)
        files = ["pictures/deeper/chalk.jpg", "pictures/seven.png"]
        assert [row["file"] for row in rows] == files
        assert all(row["error"] is None for row in rows)
        assert rows[0]["label"] == rows[1]["label"]


def test_a_user_s_own_network_is_given_by_class_name(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_module.py").write_text(
        "from mnist_lightning.networks.multilayer_perceptron import MultilayerPerceptron\n\n\n"
        "class Mine(MultilayerPerceptron):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    named = ("--model.network", "my_module.Mine")
    assert command("fit", *DIGITS, *named, "--trainer.max_epochs", "1").status == 0
    draw_seven().save("seven.png")
    unnamed = command("predict", "seven.png", "--run", "last")
    assert unnamed.status == 1
    assert "give the class with --model.network MODULE.CLASS" in unnamed.err
    result = command("predict", "seven.png", "--run", "last", *named)
    assert result.status == 0, result.err
    assert result.out.startswith("seven.png  ")


def test_json_and_csv_contain_the_same(trained_cli: Command) -> None:
    arguments = ("predict", "pictures/seven.png", "nowhere.png", "--run", "0")
    as_json = json.loads(trained_cli(*arguments, "--json").out)
    as_csv = list(csv.DictReader(io.StringIO(trained_cli(*arguments, "--csv").out)))
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in as_json] == as_csv


def test_unreadable_files_are_reported_and_the_others_are_read(trained_cli: Command) -> None:
    whole = Path("pictures/seven.png").read_bytes()
    for name, content in (("empty", b""), ("text", b"seven"), ("torn", whole[: len(whole) // 2])):
        Path(f"{name}.png").write_bytes(content)
    Image.new("L", (50, 50), 255).save("blank.png")
    Image.new("1", (13_000, 13_000)).save("vast.png")
    Image.new("1", (1, 1)).save("pixel.png")
    files = [f"{name}.png" for name in ("empty", "text", "torn", "blank", "vast", "pixel")]
    result = trained_cli(
        "predict", *files, "nowhere.png", "pictures/seven.png", "--run", "0", "--json"
    )
    assert result.status == 1
    assert result.err == ""
    rows = {row["file"]: row for row in json.loads(result.out)}
    assert (
        rows["empty.png"]["error"]
        == rows["text.png"]["error"]
        == "not an image of a supported format"
    )
    assert "damaged" in rows["torn.png"]["error"]
    assert rows["blank.png"]["error"].startswith("no digit in the image")
    assert "too large" in rows["vast.png"]["error"]
    assert rows["pixel.png"]["error"].startswith("no digit")
    assert rows["nowhere.png"]["error"] == "no such file or directory"
    assert rows["pictures/seven.png"]["error"] is None


def test_every_image_format_gives_the_same_digit(tmp_path: Path) -> None:
    seven = draw_seven()
    expected = mnist_format.from_image(seven)
    clear = Image.new("RGBA", seven.size)
    clear.putalpha(Image.fromarray(255 - np.asarray(seven)))
    forms = {
        "16.png": Image.fromarray(np.asarray(seven).astype(np.uint16) * 257),
        "cmyk.tif": seven.convert("CMYK"),
        "palette.gif": seven.convert("P"),
        "color.bmp": seven.convert("RGB"),
        "ink_alone.png": clear,
        "bits.png": seven.convert("1"),
    }
    for name, picture in forms.items():
        picture.save(tmp_path / name)
        actual = mnist_format.from_image(mnist_format.read(tmp_path / name))
        assert np.abs(actual.astype(int) - expected).mean() < 1, name
    seven.save(tmp_path / "moving.gif", save_all=True, append_images=[seven.rotate(90)])
    assert np.array_equal(
        mnist_format.from_image(mnist_format.read(tmp_path / "moving.gif")), expected
    )


def test_rotated_photos_and_large_images_give_the_same_digit(tmp_path: Path) -> None:
    for size in (200, 6000):
        turned = draw_seven(size=size, width=size // 20).transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[274] = 6  # rotated by a quarter turn
        turned.save(tmp_path / "turned.jpg", exif=exif, quality=95)
        assert gives_seven(mnist_format.read(tmp_path / "turned.jpg"))


def test_an_image_is_read_from_standard_input(
    trained_cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("pictures/seven.png").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        (row,) = json.loads(trained_cli("predict", "-", "--run", "0", "--json").out)
    assert row["error"] is None


def test_the_inputs_of_the_network_are_saved(trained_cli: Command) -> None:
    arguments = ("predict", "pictures", "nowhere.png", "--run", "0", "--save_inputs", "seen")
    assert trained_cli(*arguments).status == 1
    assert sorted(path.name for path in Path("seen").iterdir()) == [
        "000_chalk.png",
        "001_seven.png",
    ]
    with Image.open("seen/001_seven.png") as kept:
        assert np.array_equal(np.asarray(kept), mnist_format.from_image(draw_seven()))


def test_mistakes_are_reported(trained_cli: Command) -> None:
    Path("empty").mkdir()
    assert "no image in empty" in trained_cli("predict", "empty").err
    assert (
        "run not found: 9 in lightning_logs" in trained_cli("predict", "pictures", "--run", "9").err
    )
    assert (
        "both --json and --csv are given; give only one"
        in trained_cli("predict", "pictures", "--json", "--csv").err
    )
    assert "IMAGE is missing" in trained_cli("predict").err


def test_a_file_named_twice_is_read_twice(trained_cli: Command) -> None:
    result = trained_cli("predict", *["pictures/seven.png"] * 2, "--run", "0")
    assert [line.split()[0] for line in result.out.splitlines()] == ["pictures/seven.png"] * 2


def test_notes_do_not_mix_with_json(trained_cli: Command) -> None:
    result = trained_cli("predict", "pictures/seven.png", "--json")
    assert json.loads(result.out)[0]["error"] is None
    assert "no run trained on mnist in lightning_logs: using the best run on digits" in result.err


def test_an_invalid_directory_for_inputs_is_reported_first(trained_cli: Command) -> None:
    arguments = ("predict", "pictures", "--run", "0", "--save_inputs", "pictures/seven.png")
    assert (
        "--save_inputs pictures/seven.png: file exists; use another folder"
        in trained_cli(*arguments).err
    )
    assert trained_cli("predict", "pict*", "", "--run", "0", "--json").status == 1
    rows = json.loads(trained_cli("predict", "pict*", "--run", "0", "--json").out)
    assert len(rows) == 2


def test_a_pattern_does_not_follow_circular_links(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "inner" / ".hidden").mkdir(parents=True)
    for name in ("a.png", "inner/b.png", "inner/.hidden/c.png", ".d.png"):
        (photos / name).touch()
    for name in ("x", "y"):
        (photos / name).symlink_to(".")
    actual = list(predict_reader.list_images([str(photos / "**" / "*.png")]))
    assert actual == [str(photos / "a.png"), str(photos / "inner" / "b.png")]
