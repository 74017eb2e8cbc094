"""The responses of the server, and the networks that compute them."""

import base64
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Literal

from pydantic import BaseModel

from mnist_lightning.deployment.problems import ProblemError
from mnist_lightning.errors import UserError
from mnist_lightning.inference import DigitPrediction, Recognizer, load
from mnist_lightning.networks.registry import NetworkFactory
from mnist_lightning.preprocessing.mnist_format import png
from mnist_lightning.runs.run_directory import PRETRAINED_FOLDER, Run, list_runs
from mnist_lightning.runs.summary_table import read_row
from mnist_lightning.text import printable

MAX_LOADED = 4  # networks besides the default one


class DigitAnswer(BaseModel):
    """A digit in an image."""

    label: int
    confidence: float
    probabilities: list[float]
    box: tuple[int, int, int, int]
    ink: Literal["dark", "light"]
    wide: bool
    unsure: bool
    not_digit: bool
    cell: tuple[int, int] | None  # row and column in a form, from 1
    input: str


class Answer(BaseModel):
    """The result for an image: its digits in reading order, boxes in its pixels."""

    run: str
    width: int
    height: int
    digits: list[DigitAnswer]
    milliseconds: float


class KnownRun(BaseModel):
    """A run, which can predict if it is `ready`; if `watchable`, it has snapshots for `/watch`."""

    name: str
    dataset: str
    network: str
    val_accuracy: float | None
    ready: bool
    watchable: bool


class Health(BaseModel):
    """The state of the server, its default run, whether it collects corrections and can learn."""

    status: Literal["ok"]
    version: str
    run: str
    collects: bool
    teaches: bool


class ModelRegistry:
    """The networks of the runs, by the names of their directories: the default one, and others.

    Args:
        run: the default run. If it is in training and has no checkpoint yet, its newest best
            checkpoint is loaded as soon as it exists.
        checkpoint: one of its checkpoints; None: the best.
        root: the directory of the other runs; a run with the name of the default run is hidden.
        classes: custom network classes that the runs may need.

    Attributes:
        default: the network of the default run, if it is loaded once; otherwise None.
    """

    def __init__(
        self, run: Run, checkpoint: Path | None, root: Path, classes: Sequence[NetworkFactory] = ()
    ) -> None:
        self.run = run
        self.root = root
        self.default: Recognizer | None = None
        if checkpoint is not None or run.best.is_file() or not run.is_training():
            self.default = load(checkpoint or run.folder, root, classes)
        self._classes = classes
        self._read_once = lru_cache(MAX_LOADED)(self._read)
        self._loading = Lock()  # so that a network is not loaded twice at the same time

    def known(self) -> dict[str, Run]:
        """Return the default run, and the others that have a checkpoint, by name."""
        runs = list_runs(self.root)
        others = {run.folder.name: run for run in runs if run.best.is_file()}
        pretrained = Run(PRETRAINED_FOLDER)
        return {pretrained.reference: pretrained} | others | {self.run.folder.name: self.run}

    def is_ready(self, run: Run) -> bool:
        """Return whether a known run has a network: only the default one may have none yet."""
        return run.best.is_file() or (run == self.run and self.default is not None)

    def recognizer(self, name: str | None) -> Recognizer:
        """Return the network of a run, by default of the default run; see `load`."""
        name = self.run.folder.name if name is None else name
        if self.default is not None and name == self.run.folder.name:
            return self.default
        return self.load(name)

    def load(self, name: str) -> Recognizer:
        """Load the network of a run.

        Raises:
            ProblemError: the run does not exist, has no checkpoint yet, or its network cannot be
                loaded.
        """
        run = self.known().get(name)
        if run is None:
            raise ProblemError(404, "unknown_run", f"run not found: {name!r}; see /api/runs")
        try:
            status = run.best.stat()
        except OSError:
            message = f"{name} has no checkpoint yet; the page /watch shows its training"
            raise ProblemError(409, "no_checkpoint", message) from None
        # The calibration of the network is fitted at the end of the training.
        phase = run.summary("state").get("state")
        with self._loading:
            result = self._read_once(name, status.st_mtime_ns, status.st_size, phase)
        if isinstance(result, UserError):
            raise ProblemError(409, "unusable_run", str(result))
        return result

    def _read(self, name: str, *state: int | str | None) -> Recognizer | UserError:
        """Load a network; return an error, so that its file is not read again in this state."""
        try:
            return load(self.known()[name].best, self.root, self._classes)
        except UserError as error:
            return error


def to_answer(prediction: DigitPrediction) -> DigitAnswer:
    """Convert a prediction to its JSON form."""
    digit = prediction.digit
    return DigitAnswer(
        label=prediction.label,
        confidence=prediction.confidence,
        probabilities=prediction.probabilities.tolist(),
        box=digit.box,
        ink="dark" if digit.dark else "light",
        wide=digit.wide,
        unsure=prediction.unsure,
        not_digit=prediction.not_digit,
        cell=digit.cell,
        input="data:image/png;base64," + base64.b64encode(png(digit.ink)).decode(),
    )


def known_run(run: Run, ready: bool = True) -> KnownRun:
    """Describe a run from its summary; unknown entries are allowed."""
    row = read_row(run)
    return KnownRun(
        name=printable(row.run),
        dataset=row.dataset or "unknown",
        network=row.network or "",
        val_accuracy=row.val_accuracy,
        ready=ready,
        watchable=run.snapshots.is_dir(),
    )
