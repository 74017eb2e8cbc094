"""The files of a run are read with bounded time and memory, and errors have one line."""

import io
import re
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_lightning import files, load
from mnist_lightning.errors import UserError
from mnist_lightning.files import LimitError, parse_yaml, read_yaml
from mnist_lightning.runs.archive import find_archive_problem
from mnist_lightning.runs.checkpoint import dump_checkpoint
from mnist_lightning.runs.metrics_csv import read_history, read_metrics
from mnist_lightning.runs.predictions_csv import read_predictions
from mnist_lightning.runs.run_directory import Run
from tests.conftest import Command


def saved(**tensors: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": tensors}, buffer)
    return buffer.getvalue()


def compress_entries(content: bytes) -> bytes:
    """Return the archive with compressed entries, which torch.load also reads."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return buffer.getvalue()


def test_files_of_torch_save_are_accepted() -> None:
    for content in (saved(), saved(a=torch.zeros(1000), b=torch.rand(3, 3))):
        assert find_archive_problem(content) is None
    assert find_archive_problem(dump_checkpoint({"state_dict": {"a": torch.rand(10_000)}})) is None


@pytest.mark.slow
def test_a_compressed_checkpoint_is_rejected_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.ckpt"
    path.write_bytes(compress_entries(saved(a=torch.zeros(500_000_000, dtype=torch.uint8))))
    assert path.stat().st_size < 1_000_000
    script = (
        "import resource, time; from pathlib import Path\n"
        "from mnist_lightning.runs.checkpoint import DamagedCheckpointError, read_checkpoint\n"
        "before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()\n"
        f"try: read_checkpoint(Path({str(path)!r}))\n"
        "except DamagedCheckpointError as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
        "print(time.process_time() - began)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    message, megabytes, seconds = done.stdout.splitlines()
    assert "its entries are compressed" in message
    assert int(megabytes) < 20
    assert float(seconds) < 1


def test_invalid_archives_are_rejected() -> None:
    whole = saved(a=torch.zeros(100))
    reason = find_archive_problem(b"\x80\x02" + bytes(100))
    assert reason is not None and "not a zip archive" in reason
    entries = [at for at in range(len(whole)) if whole.startswith(b"PK\x01\x02", at)]
    overlapping = bytearray(whole)
    overlapping[entries[1] + 42 : entries[1] + 46] = whole[entries[0] + 42 : entries[0] + 46]
    assert find_archive_problem(bytes(overlapping)) == "its entries overlap"
    larger = bytearray(whole)
    larger[entries[-1] + 20 : entries[-1] + 28] = struct.pack("<II", 10**9, 10**9)
    assert find_archive_problem(bytes(larger)) == "its entries are larger than the file"
    assert find_archive_problem(whole[:-30]) == "its directory is damaged"


@settings(max_examples=200)
@given(st.data())
def test_a_mutated_archive_raises_no_exception(data: st.DataObject) -> None:
    content = bytearray(saved(a=torch.zeros(4)))
    directory = content.index(b"PK\x01\x02")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(directory, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    reason = find_archive_problem(bytes(content))
    assert reason is None or isinstance(reason, str)


def test_a_safetensors_header_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for length in (10**15, 90_000_000, 9):
        path.write_bytes(struct.pack("<Q", length) + b"{}      ")
        with pytest.raises(UserError, match=r"its header has .* bytes; the limit is 8"):
            load(path)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 90_000_000))
        file.truncate(100_000_000)
    with pytest.raises(UserError, match="the limit is 10,000,000"):
        load(path)


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LAUGHS, "with its aliases it has more than 20,000 values"),
        ("[" * 50_000, "nested"),
        ("[" * 200 + "]" * 200, "nested more than 30 deep"),
        ("a: &a [*a]", "with its aliases it has more than 20,000 values"),
        ("a: !!int " + "9" * 5000, "a number of more than 100 characters"),
        ("a: !!int 1" + ":1" * 100_000, "a number of more than 100 characters"),
        ("a: " + "x" * 1_100_000, "too large: the limit is 300,000 bytes"),
    ],
)
def test_yaml_that_expands_beyond_its_limits_is_rejected(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    began = time.process_time()
    with pytest.raises(UserError, match=message):
        read_yaml(path)
    assert time.process_time() - began < 5


def test_anchors_and_aliases_of_a_normal_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("base: &base {a: 1}\nother: {<<: *base, b: 2}\nlist: [*base, *base]")
    assert read_yaml(path) == yaml.safe_load(path.read_text())


SUMMARIES = [
    '{"val/accuracy": 1e400, "dataset": "mnist", "test/accuracy": -1e400}',
    '{"val/accuracy": %s, "parameters": %s, "seed": %s}' % (("9" * 4000,) * 3),
    '{"parameters": %s}' % ("9" * 5000),
    '{"a": ' + "[" * 100_000,
    '{"dataset": "mnist", "network": ' + '{"a":' * 500 + "1" + "}" * 501,
    '{"dataset": "' + "x" * 11_000_000 + '"}',
    '{"network": {"class_path": 7}, "started": [], "state": {}, "epochs": true}',
    '{"dataset": NaN, "fit_seconds": Infinity, "epochs": -Infinity}',
]


@pytest.mark.parametrize("number", range(len(SUMMARIES)))
def test_an_invalid_summary_is_listed_without_a_traceback(
    command: Command, run_0: Run, number: int
) -> None:
    run_0.checkpoints.mkdir(parents=True)
    (run_0.folder / "summary.json").write_text(SUMMARIES[number])
    (run_0.folder / "config.yaml").write_text(LAUGHS)
    for arguments in (["runs"], ["runs", "--json"], ["runs", "--csv"], ["runs", "--sort", "best"]):
        result = command(*arguments)
        assert result.status == 0, result.err
        assert len(result.out) < 2_000
    for arguments in (["report", "0"], ["export", "0", "--format", "pth"], ["test", "best"]):
        result = command(*arguments)
        assert result.status != 0
        assert "looks like a bug" not in result.err
        assert len(result.err.splitlines()) == 1


def test_infinity_is_not_the_best_accuracy(command: Command, tmp_path: Path) -> None:
    for version, accuracy in enumerate(("0.5", "1e400", "9.0")):
        folder = tmp_path / "lightning_logs" / f"version_{version}"
        folder.mkdir(parents=True)
        text = f'{{"dataset": "mnist", "val/accuracy": {accuracy}}}'
        (folder / "summary.json").write_text(text)
    assert "version_0/checkpoints" in command("predict", "x.png").err


def test_tables_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss\n0," + "1" * 200_000 + "\n")
    with pytest.raises(UserError, match="is damaged"):
        read_history(path)
    with path.open("r+b") as file:
        file.truncate(70_000_000)
    with pytest.raises(UserError, match="too large: the limit is 20,000,000 bytes"):
        read_metrics(path)
    path.write_bytes(b"epoch\n" + b"1\n" * 500_001)
    with pytest.raises(UserError, match="1,000,000 cells in 500,000 rows"):
        read_metrics(path)
    table = tmp_path / "predictions.csv"
    for content in (
        "index,true,predicted,p0\n0,0,0," + "9" * 200_000 + "x\n",
        "index,true,predicted,p0\n",
        "0,0,0" + ",1" * 2_000 + "\n" + "0,0,0" + ",1" * 2_000 + "\n",
        "index,true,predicted,p0,p1\n0,0,0,1,0\n1,0\n",
        "index,true,predicted,p0,p1\n0,1e400,0,1,0\n",
        "index,true,predicted,p0,p1\n0,0,1,-0.5,-0.5\n",
        "index,true,predicted,p0,p1\n0,0,1,0,1e300\n",
    ):
        table.write_text(content)
        with pytest.raises(UserError, match="damaged or not a table of predictions"):
            read_predictions(table)
    with table.open("r+b") as file:
        file.truncate(60_000_000)
    with pytest.raises(UserError, match="too large: the limit is 50,000,000 bytes"):
        read_predictions(table)


def test_yaml_with_many_keys_that_are_not_strings_is_rejected() -> None:
    assert len(parse_yaml("\n".join(f"k{n}: 0" for n in range(1000)))) == 1000
    with pytest.raises(LimitError, match="256 keys that are not strings"):
        parse_yaml("\n".join(f"{n * (2**61 - 1)}: 0" for n in range(300)))


def test_reading_yaml_ends_at_its_limits(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for text in ("[" + "1," * 140_000 + "]", "[" * 140_000, "- " * 140_000):
        path.write_text(text)
        began = time.process_time()
        with pytest.raises(UserError, match=r"20,000 values|nested more than 30 deep"):
            read_yaml(path)
        assert time.process_time() - began < 4


@pytest.mark.parametrize(
    "start", ["1", "1_", "0.", ":1", "1:1", "-", "2001-01-01T", "0x1", "=", "<"]
)
def test_a_long_scalar_is_text_and_not_matched_against_patterns(
    monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    text = "1" + start * 20_000 + "x"
    longest = []

    class Observed:
        def __init__(self, pattern: re.Pattern[str]) -> None:
            self.pattern = pattern

        def match(self, value: str) -> object:
            longest.append(len(value))
            return self.pattern.match(value)

    resolvers = files._Loader.yaml_implicit_resolvers
    observed = {
        first: [(tag, Observed(pattern)) for tag, pattern in pairs]
        for first, pairs in resolvers.items()
    }
    monkeypatch.setattr(files._Loader, "yaml_implicit_resolvers", observed)
    assert parse_yaml(f"a: {text}\nb: 12") == {"a": text, "b": 12}
    assert max(longest) <= files.MAX_NUMBER_CHARS
