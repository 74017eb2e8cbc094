"""Compare all files of two runs, at tolerance 0.

Compared by name: every checkpoint, `metrics.csv`, `predictions.csv`, `model.pth`, `summary.json`;
the bytes of the snapshots; and the set of TensorBoard events (tag, step, value), each of which
occurs once. Not compared, because they depend on time or process: durations, dates, speeds, device
statistics, and the order of the event files.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from mnist_lightning.cli.verify import first_difference
from mnist_lightning.runs.checkpoint import read_checkpoint
from mnist_lightning.runs.metrics_csv import METRICS_FILE, read_metrics
from mnist_lightning.runs.run_directory import LOGS_FOLDER, Run

MEASURED = ("images_per_second", "final/fit_seconds", "DeviceStatsMonitor")
TIMES = ("started", "fit_seconds", "epoch_seconds", "commit")
LENGTHS = ("max_steps", "max_epochs")


def differences(uninterrupted: Run, resumed: Run, extended: bool) -> Iterator[str]:
    """Yield the differences between an uninterrupted run and a resumed run.

    `extended`: the lengths in the configuration of the checkpoints may differ.
    """
    files = [_file_names(run) for run in (uninterrupted, resumed)]
    if files[0] != files[1]:
        yield f"files {sorted(files[0] ^ files[1])}"
    for path in sorted(files[0] & files[1]):
        if path.endswith((".ckpt", ".pth")):
            pair = [_read_file(run, path, extended) for run in (uninterrupted, resumed)]
            difference = first_difference(path, *pair)
            if difference:
                yield difference
        if path.startswith(f"{uninterrupted.snapshots.name}/"):
            contents = [(run.folder / path).read_bytes() for run in (uninterrupted, resumed)]
            if contents[0] != contents[1]:
                yield path
    tables = [_metrics_rows(run) for run in (uninterrupted, resumed)]
    if tables[0] != tables[1]:
        yield f"metrics.csv: {_first_difference(*tables)}"
    predictions = [
        run.predictions.read_bytes() for run in (uninterrupted, resumed) if run.predictions.exists()
    ]
    if len(set(predictions)) > 1:
        yield "predictions.csv"
    left, right = (run.summary() for run in (uninterrupted, resumed))
    for name in sorted((left.keys() | right.keys()) - set(TIMES)):
        difference = first_difference(name, left.get(name), right.get(name))
        if difference:
            yield f"summary.json: {difference}"
    events = [_events(run) for run in (uninterrupted, resumed)]
    for name, surplus in (("surplus", events[1] - events[0]), ("missing", events[0] - events[1])):
        if surplus:
            yield f"TensorBoard, {name}: {[str(key)[:200] for key in surplus][:3]}"
    duplicates = [str(key)[:200] for key, count in events[0].items() if count > 1]
    if duplicates:
        yield f"TensorBoard, more than once without interruption: {duplicates[:3]}"


def _file_names(run: Run) -> set[str]:
    """Return the names of the files, except event files, whose names are unique."""
    paths = (path for path in run.folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(run.folder)) for path in paths if "tfevents" not in path.name}


def _first_difference(left: list[Any], right: list[Any]) -> str:
    pairs = zip(left, right, strict=False)
    return next((f"{a} / {b}" for a, b in pairs if a != b), f"{len(left)} / {len(right)} rows")


def _read_file(run: Run, path: str, extended: bool) -> Any:
    if path.endswith(".pth"):
        return torch.load(run.folder / path, weights_only=True)
    checkpoint = read_checkpoint(run.folder / path)
    if extended:
        for length in LENGTHS:
            checkpoint["config"]["trainer"].pop(length)
    return _replace_folder(checkpoint, run)


def _replace_folder(part: Any, run: Run) -> Any:
    """Replace the run directory, which the state of a ModelCheckpoint contains."""
    if isinstance(part, str):
        for folder in (
            str(run.folder.resolve()),
            str(run.folder),
            f"{LOGS_FOLDER}/{run.folder.name}",
        ):
            part = part.replace(folder, "RUN")
        return part
    if isinstance(part, dict):
        return {_replace_folder(k, run): _replace_folder(v, run) for k, v in part.items()}
    if isinstance(part, list | tuple):
        return [_replace_folder(each, run) for each in part]
    return part


def _metrics_rows(run: Run) -> list[list[tuple[str, str]]]:
    rows = read_metrics(run.folder / METRICS_FILE)
    return [
        [(column, value) for column, value in row.items() if not column.startswith(MEASURED)]
        for row in rows
    ]


def _events(run: Run) -> Counter[tuple[str, int, Any]]:
    events: Counter[tuple[str, int, Any]] = Counter()
    for path in run.folder.rglob("*tfevents*"):
        for event in _read_events(path):
            if event.HasField("graph_def"):
                events["graph", event.step, None] += 1
            for value in event.summary.value:
                events[value.tag, event.step, _event_content(value)] += 1
    return events


def _read_events(path: Path) -> Iterator[Event]:
    content, position = path.read_bytes(), 0
    while position + 12 <= len(content):
        length = int.from_bytes(content[position : position + 8], "little")
        yield Event.FromString(content[position + 12 : position + 12 + length])
        position += length + 16


def _event_content(value: Summary.Value) -> Any:
    if value.tag.startswith(MEASURED) or value.tag.startswith("_hparams_/"):
        return None
    return value.SerializeToString(deterministic=True)
