"""Resolve a RUN to a run directory or a checkpoint file.

A RUN is a run directory, a version number, a checkpoint file, `last` (the newest run), `best` (the
highest val/accuracy among the runs on one data set) or `pretrained` (the network in this package).
Commands that run inference treat several RUNs, `3,5` or `3..5`, as an ensemble.
"""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

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
        run = _last(root) if reference == "last" else _best(_scored_runs(root), root, dataset)
        return run, None
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
    if reference != "best":
        return find(reference, root)
    scored = _scored_runs(root)
    if not scored:
        problem = _no_candidate(root)
        existing = f"; {_existing_runs(root)}" if list_runs(root) else ""
        say(f"{problem}: using the pretrained network{existing}", file=sys.stderr)
        return find(PRETRAINED, root)
    return _best(scored, root), None


def _last(root: Path) -> Run:
    runs = list_runs(root)
    newest = next((run for run in reversed(runs) if any(run.checkpoints.glob("*.ckpt"))), None)
    if newest is None:
        raise UserError(f"no run with a checkpoint in {root}; {_existing_runs(root)}")
    skipped = [run for run in runs if run.version > newest.version]
    if skipped:
        names = _join_names(skipped, lambda run: run.folder.name)
        say(f"no checkpoint in {names}: using {newest.folder.name}", file=sys.stderr)
    return newest


class _ScoredRun(NamedTuple):
    run: Run
    dataset: str | None
    val_accuracy: float


def _scored_runs(root: Path) -> list[_ScoredRun]:
    """Read the data set and the score of each run that has a score."""
    summaries = ((run, run.summary("dataset", "val/accuracy")) for run in list_runs(root))
    return [
        _ScoredRun(run, summary.get("dataset"), summary["val/accuracy"])
        for run, summary in summaries
        if "val/accuracy" in summary
    ]


def _best(scored: Sequence[_ScoredRun], root: Path, dataset: str | None = None) -> Run:
    if dataset is None and scored:
        names = [each.dataset for each in scored]
        dataset = "mnist" if "mnist" in names else names[-1]
        if dataset != "mnist":
            say(
                f"no run trained on mnist in {root}: using the best run on {dataset}",
                file=sys.stderr,
            )
    candidates = [each for each in scored if each.dataset == dataset]
    if not candidates:
        problem = _no_candidate(root)
        if scored:
            problem = f"no run trained on {dataset or 'mnist'} with a val/accuracy in {root}"
        raise UserError(f"{problem}; {_existing_runs(root)}")
    return max(candidates, key=lambda each: (each.val_accuracy, each.run.version)).run


def _no_candidate(root: Path) -> str:
    """State that no run can be the best; a run without a validation set has no score."""
    return f"no {'run with a val/accuracy' if list_runs(root) else 'trained run'} in {root}"


def _existing_runs(root: Path) -> str:
    def name(run: Run) -> str:
        return f"{run.version} ({run.summary('dataset').get('dataset', 'no summary')})"

    runs = list_runs(root)
    return f"existing runs: {_join_names(runs, name)}" if runs else f"train one with: {PROGRAM} fit"


def _join_names(runs: Sequence[Run], name: Callable[[Run], str]) -> str:
    """Join the names of runs; of more than eight, only the first three and the last four."""
    if len(runs) <= 8:
        return ", ".join(map(name, runs))
    return ", ".join([*map(name, runs[:3]), "…", *map(name, runs[-4:])])
