"""predict, as typed."""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_lightning import load
from mnist_lightning.cli import predict
from mnist_lightning.networks.calibration import tempered
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.runs.run_directory import Run
from tests.conftest import DIGITS, Command
from tests.preprocessing.test_ink_extraction import drawn, like_the_seven


@pytest.fixture
def fitted(command: Command) -> Command:
    """A command line in a folder with a run, and pictures in `pictures`."""
    assert command("fit", *DIGITS, "--trainer.max_epochs", "4").status == 0
    Path("pictures", "deeper").mkdir(parents=True)
    drawn().save("pictures/seven.png")
    drawn(paper=20, ink=240).save("pictures/deeper/chalk.jpg")
    Path("pictures/notes.txt").write_text("no picture, and none that was asked for")
    return command


def test_each_file_gets_a_line_with_digit_confidence_and_runner_up(
    fitted: Command, run_0: Run
) -> None:
    result = fitted("predict", "pictures/seven.png", "--run", "last")
    assert result.status == 0, result.err
    asked = load(run_0.folder).predict("pictures/seven.png").probabilities[None]
    (probabilities,) = tempered(asked, run_0.summary()["temperature"])
    second, first = np.argsort(probabilities)[-2:]
    words = result.out.split()
    assert words[:2] == ["pictures/seven.png", str(first)]
    assert words[2:4] == [f"{100 * probabilities[first]:.1f}", "%"]
    assert words[4:6] == ["then", str(second)]
    assert ("unsure" in words) == (probabilities[first] < 0.8)


def test_folders_and_patterns_are_expanded(fitted: Command) -> None:
    for asked in ("pictures", "pictures/**/*.[pj]*g"):
        rows = json.loads(fitted("predict", asked, "--run", "0", "--json").out)
        files = ["pictures/deeper/chalk.jpg", "pictures/seven.png"]
        assert [row["file"] for row in rows] == files
        assert all(row["error"] is None for row in rows)
        assert rows[0]["label"] == rows[1]["label"]


def test_a_network_of_one_s_own_is_named_by_its_class(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_module.py").write_text(
        "from mnist_lightning.networks.multilayer_perceptron import MultilayerPerceptron\n\n\n"
        "class Mine(MultilayerPerceptron):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    named = ("--model.network", "my_module.Mine")
    assert command("fit", *DIGITS, *named, "--trainer.max_epochs", "1").status == 0
    drawn().save("seven.png")
    untold = command("predict", "seven.png", "--run", "last")
    assert untold.status == 1
    assert "name its class: --model.network MODULE.CLASS" in untold.err
    told = command("predict", "seven.png", "--run", "last", *named)
    assert told.status == 0, told.err
    assert told.out.startswith("seven.png  ")


def test_json_and_csv_say_the_same(fitted: Command) -> None:
    asked = ("predict", "pictures/seven.png", "nowhere.png", "--run", "0")
    as_json = json.loads(fitted(*asked, "--json").out)
    as_csv = list(csv.DictReader(io.StringIO(fitted(*asked, "--csv").out)))
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in as_json] == as_csv


def test_what_cannot_be_read_is_said_and_the_rest_is_read(fitted: Command) -> None:
    whole = Path("pictures/seven.png").read_bytes()
    for name, content in (("empty", b""), ("text", b"seven"), ("torn", whole[: len(whole) // 2])):
        Path(f"{name}.png").write_bytes(content)
    Image.new("L", (50, 50), 255).save("blank.png")
    Image.new("1", (13_000, 13_000)).save("vast.png")
    Image.new("1", (1, 1)).save("pixel.png")
    files = [f"{name}.png" for name in ("empty", "text", "torn", "blank", "vast", "pixel")]
    result = fitted("predict", *files, "nowhere.png", "pictures/seven.png", "--run", "0", "--json")
    assert result.status == 1
    assert result.err == ""
    rows = {row["file"]: row for row in json.loads(result.out)}
    assert rows["empty.png"]["error"] == rows["text.png"]["error"] == "no picture that can be read"
    assert "damaged" in rows["torn.png"]["error"]
    assert rows["blank.png"]["error"].startswith("no digit in the picture")
    assert "too large" in rows["vast.png"]["error"]
    assert rows["pixel.png"]["error"].startswith("no digit")
    assert rows["nowhere.png"]["error"] == "no such file or directory"
    assert rows["pictures/seven.png"]["error"] is None


def test_every_form_of_a_picture_is_the_same_digit(tmp_path: Path) -> None:
    seven = drawn()
    wanted = mnist_format.from_picture(seven)
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
        found = mnist_format.from_picture(mnist_format.read(tmp_path / name))
        assert np.abs(found.astype(int) - wanted).mean() < 1, name
    seven.save(tmp_path / "moving.gif", save_all=True, append_images=[seven.rotate(90)])
    assert np.array_equal(
        mnist_format.from_picture(mnist_format.read(tmp_path / "moving.gif")), wanted
    )


def test_a_camera_held_sideways_and_a_huge_picture_change_nothing(tmp_path: Path) -> None:
    for size in (200, 6000):
        turned = drawn(size=size, width=size // 20).transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[274] = 6  # the camera was held a quarter turn to the left
        turned.save(tmp_path / "turned.jpg", exif=exif, quality=95)
        assert like_the_seven(mnist_format.read(tmp_path / "turned.jpg"))


def test_standard_input_is_a_picture_too(fitted: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("pictures/seven.png").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        (row,) = json.loads(fitted("predict", "-", "--run", "0", "--json").out)
    assert row["error"] is None


def test_what_the_network_saw_is_kept(fitted: Command) -> None:
    asked = ("predict", "pictures", "nowhere.png", "--run", "0", "--save_inputs", "seen")
    assert fitted(*asked).status == 1
    assert sorted(path.name for path in Path("seen").iterdir()) == [
        "000_chalk.png",
        "001_seven.png",
    ]
    with Image.open("seen/001_seven.png") as kept:
        assert np.array_equal(np.asarray(kept), mnist_format.from_picture(drawn()))


def test_mistakes_are_told(fitted: Command) -> None:
    Path("empty").mkdir()
    assert "no picture in empty" in fitted("predict", "empty").err
    assert "no run 9 in lightning_logs" in fitted("predict", "pictures", "--run", "9").err
    assert "both --json and --csv: give one" in fitted("predict", "pictures", "--json", "--csv").err
    assert "IMAGE is missing" in fitted("predict").err


def test_a_file_named_twice_is_read_twice(fitted: Command) -> None:
    result = fitted("predict", *["pictures/seven.png"] * 2, "--run", "0")
    assert [line.split()[0] for line in result.out.splitlines()] == ["pictures/seven.png"] * 2


def test_json_is_json_whatever_is_said_beside_it(fitted: Command) -> None:
    result = fitted("predict", "pictures/seven.png", "--json")
    assert json.loads(result.out)[0]["error"] is None
    assert "no run on mnist in lightning_logs: taking the best of those on digits" in result.err


def test_a_folder_that_inputs_cannot_be_kept_in_is_told_first(fitted: Command) -> None:
    asked = ("predict", "pictures", "--run", "0", "--save_inputs", "pictures/seven.png")
    assert "--save_inputs pictures/seven.png: file exists; name another" in fitted(*asked).err
    assert fitted("predict", "pict*", "", "--run", "0", "--json").status == 1
    rows = json.loads(fitted("predict", "pict*", "--run", "0", "--json").out)
    assert len(rows) == 2


def test_a_pattern_follows_no_links_in_circles(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "inner" / ".hidden").mkdir(parents=True)
    for name in ("a.png", "inner/b.png", "inner/.hidden/c.png", ".d.png"):
        (photos / name).touch()
    for name in ("x", "y"):
        (photos / name).symlink_to(".")
    found = predict._expanded(str(photos / "**" / "*.png"))
    assert found == [str(photos / "a.png"), str(photos / "inner" / "b.png")]
