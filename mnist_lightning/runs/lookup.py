"""Resolve a RUN to a run directory or a checkpoint file.

A RUN is a run directory, a version number, a checkpoint file, `last` (the newest run), `best` (the
highest val/accuracy among the runs on one data set) or `pretrained` (the network in this package).
Commands that run inference treat several RUNs, `3,5` or `3..5`, as an ensemble.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.files import exists
from mnist_lightning.runs.run_directory import PRETRAINED_FOLDER, VERSION, Run, list_runs
from mnist_lightning.text import say

PRETRAINED = PRETRAINED_FOLDER.name


def expand_references(reference: str) -> list[str]:
    """Return the RUNs of a list, `3,5,best` or `3..5`; for another RUN, the RUN itself."""
    if exists(reference) or reference == PRETRAINED:
        return [reference]
    parts: list[str] = []
    for part in filter(None, reference.split(",")):
        ends = re.fullmatch(r"(\d+)\.\.(\d+)", part)
        parts += map(str, range(int(ends[1]), int(ends[2]) + 1)) if ends else [part]
    return list(dict.fromkeys(parts)) or [reference]


def ensemble_directory(members: Sequence[Run], root: Path) -> Path:
    """Return the folder for the results of an ensemble: beside its first run, or in `root`."""
    names = [run.folder.name.removeprefix("version_") for run in members]
    own = [run.folder.parent for run in members if not run.is_pretrained]
    return (own or [root])[0] / f"ensemble_{'_'.join(names)}"


def find(reference: str, root: Path, dataset: str | None = None) -> tuple[Run, Path | None]:
    """Resolve a RUN to its run and, if it names a checkpoint file, that file.

    Args:
        reference: a run folder, a version number, a checkpoint file, `last`, `best` or
            `pretrained`.
        root: the folder of the runs.
        dataset: the data set of the runs for `best`. None: MNIST, or if no run used it, the data
            set of the newest run, with a note.

    Raises:
        UserError: the run does not exist.
    """
    path = Path(reference)
    if reference == PRETRAINED:
        run = Run(PRETRAINED_FOLDER)
        return run, run.best
    if reference in ("last", "best"):
        return _last(root) if reference == "last" else _best(root, dataset), None
    if reference.isdigit() or (VERSION.fullmatch(reference) and not path.exists()):
        run = Run(root / f"version_{reference.removeprefix('version_')}")
        if not run.folder.is_dir():
            raise UserError(f"run not found: {reference} in {root}; {_existing_runs(root)}", 2)
        return run, None
    if path.is_file():
        # A file outside a run directory belongs to a run without a directory.
        in_run = path.parent.name == "checkpoints"
        return Run(path.parent.parent if in_run else path.with_suffix("")), path
    if path.is_dir():
        run = Run(path.parent if path.name == "checkpoints" else path)
        if run.config.is_file() or run.checkpoints.is_dir():
            return run, None
    raise UserError(
        f"run not found: {reference}; a RUN is `last`, `best`, `pretrained`, a version number, "
        f"a run's folder or a checkpoint file; {_existing_runs(root)}",
        status=2,
    )


def find_network(reference: str, root: Path) -> tuple[Run, Path | None]:
    """Resolve a RUN whose network is to be used; without runs, `best` is `pretrained`.

    Raises:
        UserError: the run does not exist.
    """
    if reference == "best" and not any("val/accuracy" in run.summary() for run in list_runs(root)):
        say(f"no trained run in {root}: using the pretrained network", file=sys.stderr)
        reference = PRETRAINED
    return find(reference, root)


def _last(root: Path) -> Run:
    runs = [run for run in list_runs(root) if any(run.checkpoints.glob("*.ckpt"))]
    if not runs:
        raise UserError(f"no run with a checkpoint in {root}; {_existing_runs(root)}")
    skipped = [run.folder.name for run in list_runs(root) if run.version > runs[-1].version]
    if skipped:
        names = ", ".join(skipped)
        newest = runs[-1].folder.name
        say(f"no checkpoint in {names}: using {newest}", file=sys.stderr)
    return runs[-1]


def _best(root: Path, dataset: str | None) -> Run:
    summaries = [(run, run.summary()) for run in list_runs(root)]
    scored = [pair for pair in summaries if "val/accuracy" in pair[1]]
    if dataset is None and scored:
        names = [summary.get("dataset") for _, summary in scored]
        dataset = "mnist" if "mnist" in names else names[-1]
        if dataset != "mnist":
            say(
                f"no run trained on mnist in {root}: using the best run on {dataset}",
                file=sys.stderr,
            )
    candidates = [pair for pair in scored if pair[1].get("dataset") == dataset]
    if not candidates:
        problem = "no trained run"
        if scored:
            problem = f"no run trained on {dataset or 'mnist'} with a val/accuracy"
        raise UserError(f"{problem} in {root}; {_existing_runs(root)}")
    return max(candidates, key=lambda pair: (pair[1]["val/accuracy"], pair[0].version))[0]


def _existing_runs(root: Path) -> str:
    runs = list_runs(root)
    names = [f"{run.version} ({run.summary().get('dataset', 'no summary')})" for run in runs]
    if not names:
        return f"train one with: {PROGRAM} fit"
    listed = names if len(names) <= 8 else [*names[:3], "…", *names[-4:]]
    return f"existing runs: {', '.join(listed)}"
