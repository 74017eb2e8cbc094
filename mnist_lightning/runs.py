"""Run folders and their checkpoints: claim, find, list.

A RUN, as the commands take it, is a run's folder, its version number, a checkpoint file, `last`
(the newest run) or `best` (the highest val/accuracy among the runs on one data set). Several RUNs,
`3,5` or `3..5`, are an ensemble where a command asks networks.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.files import make_folder, read_yaml, write_atomically

LOGS_FOLDER = "lightning_logs"
_VERSION = re.compile(r"version_(\d+)")


@dataclass(frozen=True)
class Run:
    """A run's folder and what is in it."""

    folder: Path

    @property
    def version(self) -> int:
        """The N of `version_N`; -1 for a folder of another name."""
        match = _VERSION.fullmatch(self.folder.name)
        return int(match[1]) if match else -1

    @property
    def reference(self) -> str:
        """The shortest RUN by which a command finds this run from the folder it was made in."""
        default = Path(LOGS_FOLDER) / f"version_{self.version}"
        return str(self.version) if self.folder == default else str(self.folder)

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.folder / "checkpoints"

    @property
    def best(self) -> Path:
        """Its best checkpoint."""
        return self.checkpoints / "best.ckpt"

    def recent(self, index: int = 0) -> Path:
        """Its last checkpoint, or the one `index` before it."""
        return self.checkpoints / ("last.ckpt" if index == 0 else f"last-{index}.ckpt")

    @property
    def config(self) -> Path:
        """Its complete configuration."""
        return self.folder / "config.yaml"

    @property
    def predictions(self) -> Path:
        """What its best checkpoint said of each test image."""
        return self.folder / "predictions.csv"

    def write_config(self, config: dict[str, Any]) -> None:
        """Write `config.yaml`, from which the run can be made again."""
        text = yaml.safe_dump(config, sort_keys=False)
        write_atomically(text.encode(), self.config)

    def read_config(self) -> dict[str, Any]:
        """Read `config.yaml`.

        Raises:
            UserError: it is none.
        """
        try:
            config = read_yaml(self.config)
        except UserError:
            config = None
        if not isinstance(config, dict):
            raise UserError(f"{self.config} is no configuration, or damaged")
        return config

    def lock(self, patience: float = 1.0) -> AbstractContextManager[Any]:
        """Keep others from training here; wait `patience` seconds for one that only looks.

        Raises:
            UserError: another process trains here, and lives.
        """
        lock = FileLock(self.folder / ".lock", timeout=patience)
        try:
            return lock.acquire()  # gives the lock back at the end of a `with`
        except Timeout:
            raise UserError(f"another process is training in {self.folder}") from None

    def clear_away(self) -> None:
        """Delete what a process that was killed had begun to write; call it under the lock."""
        for folder in (self.folder, self.checkpoints):
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink()

    def _without(self, file: str) -> UserError:
        cut_short = self.summary().get("state") in ("interrupted", "failed", "running")
        reason = ": its run ended before it saved one" if cut_short else ""
        return UserError(f"no {file} in {self.checkpoints}{reason}; train one with: {PROGRAM} fit")

    def summary(self) -> dict[str, Any]:
        """Read `summary.json`; empty where there is none that can be read."""
        try:
            summary = json.loads((self.folder / "summary.json").read_text())
        except (OSError, ValueError, RecursionError):
            return {}
        return summary if isinstance(summary, dict) else {}

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replace `summary.json`."""
        text = json.dumps(summary, indent=2) + "\n"
        write_atomically(text.encode(), self.folder / "summary.json")

    def newest_checkpoint(self) -> Path:
        """Find the newest of its last checkpoints that is whole; say which were not.

        Raises:
            UserError: there is none.
        """
        from mnist_lightning import checkpoint_file  # brings torch, which to list runs needs not

        found = sorted(self.checkpoints.glob("last*.ckpt"), key=lambda path: path.name[4:])
        found.sort(key=lambda path: path != self.recent())
        for path in found:
            try:
                checkpoint_file.read(path)
            except checkpoint_file.DamagedCheckpointError as error:
                more = "; going back to the one before" if path != found[-1] else ""
                print(f"{error}{more}")
            else:
                return path
        if not self.config.is_file() and any(self.checkpoints.glob("*.ckpt")):
            raise UserError(f"{self.folder} was not made by `fit`, which alone can be resumed")
        raise self._without("whole checkpoint")

    def best_checkpoint(self) -> Path:
        """Find the checkpoint to evaluate: `best.ckpt`, or the newest of a stock Lightning run.

        Raises:
            UserError: there is none.
        """
        if self.best.is_file():
            return self.best
        others = sorted(self.checkpoints.glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
        if not others or self.config.is_file():
            raise self._without("best.ckpt")
        return others[-1]


def claim(root: Path) -> Run:
    """Make the folder of a new run: the next free version number, never one that exists.

    Raises:
        UserError: no folder can be made there.
    """
    version = max((run.version for run in runs(root)), default=-1) + 1
    while True:
        run = Run(root / f"version_{version}")
        try:
            root.mkdir(parents=True, exist_ok=True)
            run.folder.mkdir()  # atomic: of two processes one gets a FileExistsError
            run.checkpoints.mkdir()
            return run
        except FileExistsError:
            if not root.is_dir():
                raise UserError(f"cannot keep runs in {root}: it is a file; {_REMEDY}") from None
            version += 1
        except OSError as error:
            raise UserError(f"cannot keep runs in {root}: {error.strerror}; {_REMEDY}") from None


def take(folder: Path) -> Run:
    """Make a folder a new run's, unless it is a run already.

    Raises:
        UserError: it is, or it cannot be made.
    """
    run = Run(folder)
    if run.config.exists():
        raise UserError(f"--into {folder}: there is a run already; go on with it: resume", 2)
    make_folder(run.checkpoints, "--into")
    return run


_REMEDY = "make it writable, or choose another place: --trainer.default_root_dir DIR"


def runs(root: Path) -> Iterator[Run]:
    """The run folders in `root`, oldest first."""
    if not root.is_dir():
        return
    found = [Run(path) for path in root.iterdir() if _VERSION.fullmatch(path.name)]
    yield from sorted((run for run in found if run.folder.is_dir()), key=lambda run: run.version)


def several(reference: str) -> list[str]:
    """The RUNs of a list, `3,5,best` or `3..5`, that are asked as one; of another RUN itself."""
    if _exists(reference):
        return [reference]
    parts: list[str] = []
    for part in filter(None, reference.split(",")):
        ends = re.fullmatch(r"(\d+)\.\.(\d+)", part)
        parts += map(str, range(int(ends[1]), int(ends[2]) + 1)) if ends else [part]
    return list(dict.fromkeys(parts)) or [reference]


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:  # too long a name for one
        return False


def ensemble_place(members: Sequence[Run]) -> Path:
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
    if reference.isdigit() or (_VERSION.fullmatch(reference) and not path.exists()):
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
    found = [run for run in runs(root) if any(run.checkpoints.glob("*.ckpt"))]
    if not found:
        raise UserError(f"no run with a checkpoint in {root}; make one with: {PROGRAM} fit")
    skipped = [run.folder.name for run in runs(root) if run.version > found[-1].version]
    if skipped:
        _note(f"{', '.join(skipped)} ended before a checkpoint: taking {found[-1].folder.name}")
    return found[-1]


def _best(root: Path, dataset: str | None) -> Run:
    summaries = [(run, run.summary()) for run in runs(root)]
    scored = [pair for pair in summaries if isinstance(pair[1].get("val/accuracy"), float)]
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


def _note(text: str) -> None:
    """Say something beside a command's output, which may be for a program."""
    print(text, file=sys.stderr)


def _what_there_is(root: Path) -> str:
    names = [f"{run.version} ({run.summary().get('dataset', 'no summary')})" for run in runs(root)]
    if not names:
        return f"there is none at all; make one with: {PROGRAM} fit"
    shown = names if len(names) <= 8 else [*names[:3], "…", *names[-4:]]
    return f"name one that is there, or say `last`: {', '.join(shown)}"
