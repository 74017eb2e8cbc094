"""The responses of the server, and the networks that compute them."""

import base64
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from fastapi.responses import JSONResponse
from pydantic import BaseModel

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
    input: str


class Answer(BaseModel):
    """The result for an image: its digits in reading order, boxes in its pixels."""

    run: str
    width: int
    height: int
    digits: list[DigitAnswer]
    milliseconds: float


class KnownRun(BaseModel):
    """A run that can predict."""

    name: str
    dataset: str
    network: str
    val_accuracy: float | None


class Health(BaseModel):
    """The state of the server, its default run, whether it collects corrections and can learn."""

    status: Literal["ok"]
    version: str
    run: str
    collects: bool
    teaches: bool


class ErrorDetail(BaseModel):
    """The type of an error, for programs, and a message, for people."""

    type: str
    message: str


class ErrorAnswer(BaseModel):
    """An error."""

    error: ErrorDetail


_ERRORS = {
    403: "The request is from another website, or for a host name that is not allowed.",
    404: "The run or the image does not exist.",
    408: "The upload stopped or was too slow.",
    409: "The network of the run cannot be loaded, or the request does not fit the current state.",
    413: "The image is too large.",
    422: "The image, the form or an option is invalid, or the image shows no digit.",
    500: "The server failed; its terminal shows the reason.",
    503: "The server is busy; try again later.",
    507: "The image could not be saved or removed.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of a request for OpenAPI."""
    return {status: {"model": ErrorAnswer, "description": _ERRORS[status]} for status in statuses}


class ProblemError(Exception):
    """An error that the server reports to the client."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        self.status = status
        self.kind = kind
        self.message = message

    def response(self, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """Return the error as a JSON response."""
        content = {"error": {"type": self.kind, "message": self.message}}
        return JSONResponse(content, self.status, headers)


class ModelRegistry:
    """The networks of the runs, by the names of their directories: the default one, and others.

    Args:
        run: the default run.
        checkpoint: one of its checkpoints; None: the best.
        root: the directory of the other runs; a run with the name of the default run is hidden.
        classes: custom network classes that the runs may need.
    """

    def __init__(
        self, run: Run, checkpoint: Path | None, root: Path, classes: Sequence[NetworkFactory] = ()
    ) -> None:
        self.run = run
        self.default = load(checkpoint or run.folder, root, classes)
        self._root = root
        self._classes = classes
        self._read_once = lru_cache(MAX_LOADED)(self._read)
        self._loading = Lock()  # so that a network is not loaded twice at the same time

    def known(self) -> dict[str, Run]:
        """Return the default run, and the others that have a checkpoint, by name."""
        runs = list_runs(self._root)
        others = {run.folder.name: run for run in runs if run.best.is_file()}
        pretrained = Run(PRETRAINED_FOLDER)
        return {pretrained.reference: pretrained} | others | {self.run.folder.name: self.run}

    def load(self, name: str) -> Recognizer:
        """Load the network of a run.

        Raises:
            ProblemError: the run does not exist, or its network cannot be loaded.
        """
        run = self.known().get(name)
        if run is None:
            raise ProblemError(404, "unknown_run", f"run not found: {name!r}; see /api/runs")
        status = run.best.stat()
        with self._loading:
            result = self._read_once(name, status.st_mtime_ns, status.st_size)
        if isinstance(result, UserError):
            raise ProblemError(409, "unusable_run", str(result))
        return result

    def _read(self, name: str, *state: int) -> Recognizer | UserError:
        """Load a network; return an error, so that its file is not read again in this state."""
        try:
            return load(self.known()[name].best, self._root, self._classes)
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
        input="data:image/png;base64," + base64.b64encode(png(digit.ink)).decode(),
    )


def known_run(run: Run) -> KnownRun:
    """Describe a run from its summary; unknown entries are allowed."""
    row = read_row(run)
    return KnownRun(
        name=printable(row.run),
        dataset=row.dataset or "unknown",
        network=row.network or "",
        val_accuracy=row.val_accuracy,
    )
