"""The cache of own images: the data is the same as without it, and nothing is read twice."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from mnist_lightning import files
from mnist_lightning.data import folder_cache, image_folder
from mnist_lightning.data.datasets import DigitData
from mnist_lightning.preprocessing import extraction_process, mnist_format
from tests import processes
from tests.conftest import Command
from tests.images import draw_seven

CACHE = "mnist_lightning.data.folder_cache"


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _precise_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file count as unchanged although it is new; see the tests of `CLOCK_TICK_NS`."""
    monkeypatch.setattr(folder_cache, "CLOCK_TICK_NS", 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of 20 different images."""
    folder = tmp_path / "mine"
    for index in range(20):
        place = folder / str(index % 3) / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        draw(index).save(place)
    return folder


def draw(index: int) -> Image.Image:
    """Draw one of many different images."""
    image = draw_seven(size=100 + index, width=6 + index % 9)
    return image.rotate(index % 30, fillcolor=255)


@pytest.fixture
def read_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read, in any order."""
    names: list[str] = []
    read = mnist_format.read_content

    def record(source: Path) -> bytes:
        names.append(source.name)
        return read(source)

    monkeypatch.setattr(mnist_format, "read_content", record)
    return names


@pytest.fixture
def processed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The contents in which digits are searched, in any order."""
    contents: list[bytes] = []
    find = extraction_process.DigitExtractor.find_digits

    def record(
        extractor: extraction_process.DigitExtractor, content: bytes, multiple: bool | None
    ) -> extraction_process.ExtractedDigits:
        contents.append(content)
        return find(extractor, content, multiple)

    monkeypatch.setattr(extraction_process.DigitExtractor, "find_digits", record)
    return contents


def load(folder: Path) -> DigitData:
    return image_folder.load_folder(folder, 0.3)[0]


def test_the_second_start_reads_no_file(folder: Path, read_files: list[str]) -> None:
    first = load(folder)
    assert len(read_files) == 20
    read_files.clear()
    assert load(folder).checksum == first.checksum
    assert read_files == []


def test_only_changed_and_added_files_are_read_again(folder: Path, read_files: list[str]) -> None:
    load(folder)
    read_files.clear()
    draw(50).save(folder / "1" / "4.png")
    draw(51).save(folder / "2" / "new.png")
    (folder / "0" / "0.png").unlink()
    load(folder)
    assert sorted(read_files) == ["4.png", "new.png"]


def test_a_copied_image_is_read_but_not_processed_again(
    folder: Path, processed: list[bytes]
) -> None:
    load(folder)
    shutil.copy(folder / "0" / "0.png", folder / "1" / "copy.png")
    (folder / "2" / "2.png").rename(folder / "1" / "moved.png")
    os.utime(folder / "1" / "1.png")
    load(folder)
    assert len(processed) == 20


def test_a_change_that_keeps_size_and_modification_time_is_found(folder: Path) -> None:
    bitmap = folder / "1" / "4.bmp"
    draw(4).convert("L").save(bitmap)
    before, status = load(folder), bitmap.stat()
    draw(4).transpose(Image.Transpose.ROTATE_180).convert("L").save(bitmap)
    os.utime(bitmap, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert bitmap.stat().st_size == status.st_size
    assert load(folder).checksum != before.checksum


def test_a_file_that_changes_within_a_clock_tick_is_read_once_more(
    folder: Path, read_files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_cache, "CLOCK_TICK_NS", 10**15)  # all files are new
    load(folder)
    load(folder)
    assert len(read_files) == 40
    monkeypatch.setattr(folder_cache, "CLOCK_TICK_NS", 0)
    load(folder)
    load(folder)
    assert len(read_files) == 60


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_random_changes_give_the_data_that_is_read_without_a_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    random = Random(seed)

    def change() -> None:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        path, other = random.choice(files), random.choice(files)
        target = folder / random.choice("0123") / f"{random.randrange(30)}.png"
        target.parent.mkdir(exist_ok=True)
        action = random.randrange(7)
        if action == 0:
            draw(random.randrange(200)).save(target)
        elif action == 1 and len(files) > 5:
            path.unlink()
        elif action == 2:
            path.rename(target)
        elif action == 3 and path != other:
            shutil.copy2(path, other)
        elif action == 4:
            target.write_bytes(random.choice([b"not an image", path.read_bytes()[:100], b""]))
        elif action == 5:
            os.utime(path, (0, random.randrange(10**9)))
        elif not target.exists():
            os.link(path, target)

    for step in range(12):
        for _ in range(random.randrange(4)):
            change()
        cached, notice = image_folder.load_folder(folder, 0.3)
        with monkeypatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(tmp_path / f"empty_{step}"))
            fresh, expected_notice = image_folder.load_folder(folder, 0.3)
        assert notice == expected_notice
        assert torch.equal(cached.train_labels, fresh.train_labels)
        assert torch.equal(cached.test_labels, fresh.test_labels)
        assert cached.checksum == fresh.checksum


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "text", "former version"])
def test_a_damaged_cache_is_made_again(folder: Path, read_files: list[str], damage: str) -> None:
    expected = load(folder)
    (path,) = folder_cache.cache_folder().glob("*.safetensors")
    content = path.read_bytes()
    flipped = content[:-300] + bytes([content[-300] ^ 1]) + content[-299:]
    former = content.replace(b'"version":"1.', b'"version":"0.')
    assert former != content
    damaged = {
        "flipped": flipped,
        "truncated": content[:-5],
        "empty": b"",
        "text": b"text",
        "former version": former,
    }
    path.write_bytes(damaged[damage])
    assert load(folder).checksum == expected.checksum
    read_files.clear()
    assert load(folder).checksum == expected.checksum
    assert read_files == []


def test_without_a_writable_cache_the_images_are_read_and_this_is_reported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load(folder)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    data, notice = image_folder.load_folder(folder, 0.3)
    assert data.checksum == expected.checksum
    assert notice is not None
    assert "every start reads all images" in notice
    assert "Not a directory" in notice or "File exists" in notice


def test_the_caches_that_were_not_used_are_deleted_above_a_limit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(folder)
    (first,) = folder_cache.cache_folder().glob("*.safetensors")
    os.utime(first, (0, 0))
    monkeypatch.setattr(folder_cache, "MAX_CACHE_BYTES", 1.5 * first.stat().st_size)
    load(folder.rename(tmp_path / "other"))
    (second,) = folder_cache.cache_folder().glob("*.safetensors")
    assert second != first
    assert folder_cache.clear() > 0
    assert folder_cache.size() == 0


def test_a_failure_of_the_process_is_not_cached(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(extraction_process, "MAX_SECONDS", -1.0)
        with pytest.raises(Exception, match="no file is an image"):
            load(folder)
    assert len(load(folder).train_labels) > 0


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_reading_is_continued(
    folder: Path, processed: list[bytes], tmp_path: Path, signum: signal.Signals
) -> None:
    point = processes.SignalPoint(CACHE, "FolderCache.add", 11, after=True, signum=signum)
    own = ["--data.dataset", "folder", "--data.folder", str(folder)]
    environment = {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]}
    status = processes.run(["fit", *own], tmp_path, point, environment)
    assert status == 128 + signum
    load(folder)
    # SIGKILL loses what was read in the last minute; see the next test.
    assert len(processed) == (20 if signum == signal.SIGKILL else 9)


def test_the_results_are_saved_while_images_are_read(
    folder: Path, read_files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_folder, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(image_folder, "SAVE_SHARE", 1e9)
    times = []
    save = folder_cache.FolderCache.save

    def record(cache: folder_cache.FolderCache, paths: list[str]) -> None:
        save(cache, paths)
        times.append(len(read_files))

    monkeypatch.setattr(folder_cache.FolderCache, "save", record)
    load(folder)
    assert len(times) == 21


@pytest.mark.slow
def test_two_processes_read_a_folder_once(folder: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from mnist_lightning.data import image_folder\n"
        "from mnist_lightning.preprocessing.extraction_process import DigitExtractor\n"
        "find, count = DigitExtractor.find_digits, []\n"
        "DigitExtractor.find_digits = lambda *given: (count.append(1), find(*given))[1]\n"
        "data, _ = image_folder.load_folder(Path(sys.argv[1]), 0.3)\n"
        "print(len(count), data.checksum)\n"
    )
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, str(tmp_path / "script.py"), str(folder)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    results = [process.communicate()[0].split() for process in started]
    assert len({checksum for _, checksum in results}) == 1
    assert sorted(int(count) for count, _ in results) == [0, 0, 20]


def test_the_command_data_shows_and_clears_the_cache(command: Command, folder: Path) -> None:
    load(folder)
    shown = command("data")
    assert "own images     cached" in shown.out
    assert str(folder_cache.cache_folder()) in shown.out
    assert "deleted 0.0 MB" in command("data", "--clear_cache").out
    assert "own images" not in command("data").out


def test_the_images_are_memory_mapped(folder: Path) -> None:
    load(folder)
    with folder_cache.FolderCache(folder) as cache:
        paths = sorted(cache._files, key=lambda path: (int(path[0]), path))
        images = cache.images(paths)
    assert np.array_equal(images.numpy(), cache._stored.numpy())
    assert images.data_ptr() == cache._stored.data_ptr()


@pytest.mark.parametrize("change", ["shape", "type", "count", "texts", "places", "digests"])
def test_a_forged_cache_is_made_again(folder: Path, read_files: list[str], change: str) -> None:
    expected = load(folder)
    with folder_cache.FolderCache(folder) as cache, safe_open(cache.path, "pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    images = tensors["images"]
    forged = {
        "shape": {"images": images[:, :5, :5]},
        "type": {"images": images.float()},
        "count": {"images": images[:0]},
        "texts": {"texts": tensors["texts"][:50]},
        "places": {"states": tensors["states"] + 7},
        "digests": {"digests": tensors["digests"][:-40]},
    }
    tensors |= {name: value.contiguous() for name, value in forged[change].items()}
    cache._write(tensors)
    read_files.clear()
    assert load(folder).checksum == expected.checksum
    assert len(read_files) == 20


def test_a_cache_that_others_can_write_to_is_not_used(folder: Path) -> None:
    load(folder)
    folder_cache.cache_folder().chmod(0o777)
    _, notice = image_folder.load_folder(folder, 0.3)
    assert notice is not None
    assert "image_folders: other users can write to it" in notice


def test_the_cache_of_a_folder_that_is_read_is_not_cleared(folder: Path) -> None:
    load(folder)
    path = next(folder_cache.cache_folder().glob("*.safetensors"))
    left = path.with_name(f".{path.name}.0123456789abcdef.tmp")
    left.write_bytes(b"of a killed process")
    with folder_cache.FolderCache(folder):
        assert not left.exists()
        assert folder_cache.clear() == 0
    assert path.exists()
    left.write_bytes(b"of a killed process")
    folder_cache.clear()
    assert not path.exists()
    assert not left.exists()


def test_links_to_themselves_and_vanished_files_are_ignored(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load(folder)
    (folder / "1" / "loop.png").symlink_to("loop.png")
    (folder / "1" / "nowhere.png").symlink_to("missing.png")
    assert load(folder).checksum == expected.checksum
    walk = files.walk

    def walk_and_delete(label: Path) -> Iterator[os.DirEntry[str]]:
        for entry in walk(label):
            if entry.name == "18.png":
                Path(entry.path).unlink()
            yield entry

    monkeypatch.setattr(image_folder, "walk", walk_and_delete)
    data = load(folder)
    assert len(data.train_labels) + len(data.test_labels) == 19
