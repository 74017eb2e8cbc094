"""`predict` of many images: formats, and files that are continued after an interrupt."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mnist_lightning.cli.predict_output import (
    Batch,
    OutputFile,
    PredictedDigit,
    as_json,
    open_output,
)
from mnist_lightning.errors import UserError
from tests import processes
from tests.conftest import Command
from tests.images import draw_seven

ARGUMENTS = ("predict", "photos", "--run", "pretrained")
WRITE = (*ARGUMENTS, "--output", "digits.jsonl")


@pytest.fixture
def photos(command: Command) -> Path:
    """A folder of 70 images: three batches. One is not readable, one contains two digits."""
    folder = Path("photos")
    folder.mkdir()
    for index in range(68):
        draw_seven(size=90 + index).save(folder / f"{index:02}.png")
    (folder / "68.png").write_bytes(b"not an image")
    two = Image.new("L", (300, 120), 255)
    two.paste(draw_seven(size=120), (0, 0))
    two.paste(draw_seven(size=120), (170, 0))
    two.save(folder / "69.png")
    return folder


def test_json_lines_contain_the_rows_of_json(command: Command, photos: Path) -> None:
    lines = command(*ARGUMENTS, "--jsonl").out.splitlines()
    rows = json.loads(command(*ARGUMENTS, "--json").out)
    assert [json.loads(line) for line in lines] == rows
    assert [row["file"] for row in rows] == [
        *(f"photos/{index:02}.png" for index in range(70)),
        "photos/69.png",
    ]


def test_streamed_json_is_that_of_the_whole() -> None:
    rows = [PredictedDigit("a", 1), PredictedDigit("a", 2), PredictedDigit("b", error="é")]
    expected = json.dumps([row._asdict() for row in rows], indent=2) + "\n"
    assert "".join(as_json([[rows[:2]], [rows[2:]]])) == expected


def test_the_output_file_contains_the_lines(command: Command, photos: Path) -> None:
    expected = command(*ARGUMENTS, "--jsonl").out
    result = command(*WRITE)
    assert result.status == 1
    assert result.out == "digits.jsonl: 70 images, 1 not readable\n"
    assert Path("digits.jsonl").read_text() == expected
    assert sorted(path.name for path in Path().iterdir()) == ["digits.jsonl", "photos"]
    again = command(*WRITE)
    assert again.status == 2
    assert "digits.jsonl already exists; give another name, or delete it" in again.err
    assert not list(Path().glob(".*.lock"))


READER = "mnist_lightning.cli.predict_output"


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_an_interrupted_command_is_continued(
    command: Command, photos: Path, tmp_path: Path, signum: signal.Signals, call: int
) -> None:
    expected = command(*ARGUMENTS, "--jsonl").out
    point = processes.SignalPoint(READER, "OutputFile.write", call, after=True, signum=signum)
    assert processes.run([*WRITE], tmp_path, point) == 128 + signum
    assert not Path("digits.jsonl").exists()
    if signum == signal.SIGINT:
        done = min(32 * call, 70)
        message = f"interrupted: digits.jsonl.partial contains {done} of 70 images; repeat the"
        assert message in processes.read_output(tmp_path)
    result = command(*WRITE)
    assert result.status == 1
    assert "digits.jsonl.partial contains" in result.out
    assert result.out.endswith("digits.jsonl: 70 images, 1 not readable\n")
    check_equal(Path("digits.jsonl").read_text(), expected)


def check_equal(actual: str, expected: str) -> None:
    """Compare rows; other batches of the network may round confidences differently."""
    rows = [[json.loads(line) for line in text.splitlines()] for text in (actual, expected)]
    for row, wanted in zip(*rows, strict=True):
        assert row == {
            name: pytest.approx(value, abs=1e-6) if isinstance(value, float) else value
            for name, value in wanted.items()
        }


@pytest.mark.parametrize("tail", [b"", b'{"file": "photos/05.png", "la', b'{"file": 3}\n', b"\0"])
def test_incomplete_lines_are_cut_off(command: Command, photos: Path, tail: bytes) -> None:
    header, expected = _start(command), command(*ARGUMENTS, "--jsonl").out
    lines = expected.encode().splitlines(keepends=True)
    Path("digits.jsonl.partial").write_bytes(header + b"".join(lines[:5]) + tail)
    assert "contains 4 of 70 images" in command(*WRITE).out
    check_equal(Path("digits.jsonl").read_text(), expected)


def _start(command: Command) -> bytes:
    """Return the first line of an unfinished file."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OutputFile, "write", stop)
        assert command(*WRITE).status == 130
    return Path("digits.jsonl.partial").read_bytes()


def change_images(folder: Path) -> None:
    draw_seven().save(folder / "00a.png")


def remove_images(folder: Path) -> None:
    (folder / "01.png").unlink()


def remove_all_but_one(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    draw_seven().save(folder / "00.png")


@pytest.mark.parametrize("change", [change_images, remove_images, remove_all_but_one])
def test_a_file_for_other_images_is_not_continued(
    command: Command, photos: Path, change: Callable[[Path], None]
) -> None:
    header, lines = _start(command), command(*ARGUMENTS, "--jsonl").out.splitlines(keepends=True)
    Path("digits.jsonl.partial").write_bytes(header + "".join(lines[:5]).encode())
    change(photos)
    result = command(*WRITE)
    assert result.status == 2
    assert "digits.jsonl.partial does not match the images: it contains photos/0" in result.err
    assert len(Path("digits.jsonl.partial").read_bytes().splitlines()) == 6


def test_a_file_of_other_settings_or_of_another_program_is_not_continued(
    command: Command, photos: Path
) -> None:
    header = _start(command)
    other = command(*WRITE, "--multiple")
    assert other.status == 2
    assert "with other options: multiple was auto, is now true; repeat" in other.err
    for content in (b"text\n", b"[1]\n", b"[" * 200_000):
        Path("digits.jsonl.partial").write_bytes(content)
        result = command(*WRITE)
        assert result.status == 2, content
        assert "was not written by `predict --output`" in result.err
        assert Path("digits.jsonl.partial").read_bytes() == content
    assert b"weights" in header


def test_a_file_of_a_process_that_was_killed_at_its_start_is_continued(
    command: Command, photos: Path
) -> None:
    header, expected = _start(command), command(*ARGUMENTS, "--jsonl").out
    for content in (b"", header[:10], header):
        Path("digits.jsonl.partial").write_bytes(content)
        assert command(*WRITE).status == 1
        check_equal(Path("digits.jsonl").read_text(), expected)
        Path("digits.jsonl").unlink()


def test_nothing_is_written_through_a_link_or_into_a_pipe(
    command: Command, photos: Path, tmp_path: Path
) -> None:
    partial = Path("digits.jsonl.partial")
    partial.symlink_to(tmp_path / "elsewhere")
    assert "digits.jsonl.partial: too many levels of symbolic links" in command(*WRITE).err
    partial.unlink()
    os.mkfifo(partial)
    assert "digits.jsonl.partial: not a regular file; delete it" in command(*WRITE).err
    assert not (tmp_path / "elsewhere").exists()
    long = command(*ARGUMENTS, "--output", "x" * 230)
    assert (long.status, "is too long" in long.err) == (2, True)


def test_a_full_disk_is_reported_with_a_fix(command: Command, photos: Path) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        output = OutputFile(Path("digits.jsonl.partial"), full)
        with pytest.raises(UserError, match="no space left on device; then repeat the command"):
            output.write([[PredictedDigit("a.png", 1)]])


def test_a_file_given_twice_is_continued(command: Command, photos: Path) -> None:
    images = ["photos/01.png", "photos/01.png", "photos/02.png", "photos/02.png", "photos/01.png"]
    arguments = ("predict", *images, "--run", "pretrained", "--output", "out/twice.jsonl")
    assert command(*arguments).status == 0
    lines = Path("out/twice.jsonl").read_text().splitlines(keepends=True)
    assert [json.loads(line)["file"] for line in lines] == images
    rows = [PredictedDigit(**json.loads(line)) for line in lines]
    for done, kept in ((2, 0), (3, 2), (4, 2), (5, 4)):
        with pytest.raises(KeyboardInterrupt):
            write_and_stop([[row] for row in rows[:done]], images)
        with open_output(Path("other.jsonl"), {}, images) as output:
            assert output.done == kept
        Path("other.jsonl").unlink()


def write_and_stop(batch: Batch, images: list[str]) -> None:
    with open_output(Path("other.jsonl"), {}, images) as output:
        output.write(batch)
        raise KeyboardInterrupt


def test_two_processes_do_not_write_one_file(command: Command, photos: Path) -> None:
    with open_output(Path("digits.jsonl"), {}, []):
        assert "another process writes digits.jsonl; wait until it ends" in command(*WRITE).err


def test_the_output_is_not_json_or_csv(command: Command, photos: Path) -> None:
    assert "omit --json and --csv" in command(*WRITE, "--csv").err
    assert "--output photos/00.png/x" in command(*ARGUMENTS, "--output", "photos/00.png/x/y").err
