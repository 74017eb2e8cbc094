"""Resolve a RUN to a run directory or a checkpoint file.

A RUN is a run directory, a version number, a checkpoint file, `last` (the newest run) or `best`
(the highest val/accuracy among the runs on one data set). Commands that run inference treat
several RUNs, `3,5` or `3..5`, as an ensemble.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.files import exists
from mnist_lightning.runs.run_directory import VERSION, Run, list_runs
from mnist_lightning.text import say


def expand_references(reference: str) -> list[str]:
    """The RUNs of a list, `3,5,best` or `3..5`, that are asked as one; of another RUN itself."""
    if exists(reference):
        return [reference]
    parts: list[str] = []
    for part in filter(None, reference.split(",")):
        ends = re.fullmatch(r"(\d+)\.\.(\d+)", part)
        parts += map(str, range(int(ends[1]), int(ends[2]) + 1)) if ends else [part]
    return list(dict.fromkeys(parts)) or [reference]


def ensemble_directory(members: Sequence[Run]) -> Path:
    """Where what is made of several runs as one goes: beside the first of them."""
    names = [run.folder.name.removeprefix("version_") for run in members]
    return members[0].folder.parent / f"ensemble_{'_'.join(names)}"


def find(reference: str, root: Path, dataset: str | None = None) -> tuple[Run, Path | None]:
    """Resolve a RUN to its run and, where it names a checkpoint file, that file.

    Args:
        reference: a run folder, a version number, a checkpoint file, `last` or `best`.
        root: where runs are.
        dataset: among the runs on which `best` chooses. None: MNIST, or where there is no such
            run the data set of the newest one, which is said.

    Raises:
        UserError: there is no such run.
    """
    path = Path(reference)
    if reference in ("last", "best"):
        return _last(root) if reference == "last" else _best(root, dataset), None
    if reference.isdigit() or (VERSION.fullmatch(reference) and not path.exists()):
        run = Run(root / f"version_{reference.removeprefix('version_')}")
        if not run.folder.is_dir():
            raise UserError(f"no run {reference} in {root}; {_what_there_is(root)}", status=2)
        return run, None
    if path.is_file():
        # One that lies in no run's folder belongs to a run that has none.
        in_run = path.parent.name == "checkpoints"
        return Run(path.parent.parent if in_run else path.with_suffix("")), path
    if path.is_dir():
        run = Run(path.parent if path.name == "checkpoints" else path)
        if run.config.is_file() or run.checkpoints.is_dir():
            return run, None
    raise UserError(
        f"{reference} is no run: not `last`, not `best`, no run's folder, no checkpoint file; "
        f"{_what_there_is(root)}",
        status=2,
    )


def _last(root: Path) -> Run:
    found = [run for run in list_runs(root) if any(run.checkpoints.glob("*.ckpt"))]
    if not found:
        raise UserError(f"no run with a checkpoint in {root}; make one with: {PROGRAM} fit")
    skipped = [run.folder.name for run in list_runs(root) if run.version > found[-1].version]
    if skipped:
        _note(f"{', '.join(skipped)} ended before a checkpoint: taking {found[-1].folder.name}")
    return found[-1]


def _best(root: Path, dataset: str | None) -> Run:
    summaries = [(run, run.summary()) for run in list_runs(root)]
    scored = [pair for pair in summaries if _is_share(pair[1].get("val/accuracy"))]
    if dataset is None and scored:
        names = [summary.get("dataset") for _, summary in scored]
        dataset = "mnist" if "mnist" in names else names[-1]
        if dataset != "mnist":
            _note(f"no run on mnist in {root}: taking the best of those on {dataset}")
    candidates = [pair for pair in scored if pair[1].get("dataset") == dataset]
    if not candidates:
        what = f"no run on {dataset or 'mnist'} with a val/accuracy"
        raise UserError(f"{what} in {root}; {_what_there_is(root)}")
    return max(candidates, key=lambda pair: (pair[1]["val/accuracy"], pair[0].version))[0]


def _is_share(value: object) -> bool:
    """Whether a summary's accuracy is one: 1e400 would be the best of all."""
    return isinstance(value, float) and 0 <= value <= 1


def _note(text: str) -> None:
    """Say something beside a command's output, which may be for a program."""
    say(text, file=sys.stderr)


def _what_there_is(root: Path) -> str:
    names = [
        f"{run.version} ({run.summary().get('dataset', 'no summary')})" for run in list_runs(root)
    ]
    if not names:
        return f"there is none at all; make one with: {PROGRAM} fit"
    shown = names if len(names) <= 8 else [*names[:3], "…", *names[-4:]]
    return f"name one that is there, or say `last`: {', '.join(shown)}"
