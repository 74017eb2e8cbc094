"""The requests of the page that shows a training: its state, metrics and snapshots."""

import base64
from typing import Annotated

from fastapi import FastAPI, Query
from pydantic import BaseModel

from mnist_lightning.deployment.problems import ProblemError, errors
from mnist_lightning.deployment.watched_runs import ACTIVE, Progress, State, WatchedRuns
from mnist_lightning.runs.snapshots import MAX_COUNT, Part, Snapshot
from mnist_lightning.text import printable

# Descriptions of the options of a request.
RUN = "The name of a run directory; the default is the run that the server was started with."
AFTER = "Return the metrics of later epochs only."
SNAPSHOTS_AFTER = "Return the snapshots of later epochs only; -1: all."
PAGE = "Any text that identifies the page which sends the request."
MAX_PAGE_CHARS = 40


class EpochMetrics(BaseModel):
    """The metrics of an epoch; null if they are missing or not finite."""

    epoch: int
    step: int
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None


class FirstLayerFilters(BaseModel):
    """The first filters of the first layer: `shape` is (N, height, width) of `total` filters.

    `values` is base64 of a signed byte per weight: a weight is byte * scale / 127.
    """

    total: int
    shape: tuple[int, int, int]
    scale: float
    values: str


class FixedDigit(BaseModel):
    """An image of the data set: base64 of 28 * 28 bytes, 0 for paper; and its prediction."""

    pixels: str
    label: int
    part: Part
    probabilities: list[float] | None


class EpochSnapshot(BaseModel):
    """The network after an epoch; `confusion` counts the validation images [true][predicted]."""

    epoch: int
    step: int
    filters: FirstLayerFilters | None
    digit: FixedDigit
    confusion: list[list[int]] | None


class TrainingProgress(BaseModel):
    """What is new in a run.

    `follow` tells whether a later request may return more; `can_draw`, whether this server has the
    page on which to draw.
    """

    run: str
    state: State
    follow: bool
    can_draw: bool
    started: str | None
    dataset: str | None
    network: str | None
    max_epochs: int | None
    test_accuracy: float | None
    done: int
    step: int
    last_epoch: int
    last_snapshot: int
    epochs: list[EpochMetrics]
    step_losses: list[tuple[int, float]]
    snapshots: list[EpochSnapshot]
    damaged: list[int]
    problem: str | None


def add(app: FastAPI, runs: WatchedRuns, can_draw: bool) -> None:
    """Add the requests to an application, which has the page on which to draw or not."""

    @app.get("/api/watch", responses=errors(403, 404, 422, 500))
    def watch(
        run: Annotated[str | None, Query(description=RUN)] = None,
        after: Annotated[int, Query(ge=0, le=MAX_COUNT, description=AFTER)] = 0,
        snapshots_after: Annotated[
            int, Query(ge=-1, le=MAX_COUNT, description=SNAPSHOTS_AFTER)
        ] = -1,
        page: Annotated[str, Query(max_length=MAX_PAGE_CHARS, description=PAGE)] = "",
    ) -> TrainingProgress:
        """Return the progress of a run since an epoch."""
        expects_more = runs.expects_more  # before the files are read
        watcher = runs.find(run)
        if watcher is None:
            raise ProblemError(404, "unknown_run", f"run not found: {run!r}")
        progress = watcher.read(after, snapshots_after)
        follow = progress.state in ACTIVE or (expects_more and watcher.run == runs.run)
        if page:
            runs.note_page(page, has_final_state=not follow)
        return _as_answer(progress, follow, can_draw)


def _as_answer(progress: Progress, follow: bool, can_draw: bool) -> TrainingProgress:
    row = progress.row
    return TrainingProgress(
        run=printable(row.run),
        state=progress.state,
        follow=follow,
        can_draw=can_draw,
        started=row.started,
        dataset=row.dataset,
        network=row.network,
        max_epochs=progress.max_epochs,
        test_accuracy=row.test_accuracy,
        done=progress.done,
        step=progress.step,
        last_epoch=progress.last_epoch,
        last_snapshot=progress.last_snapshot,
        epochs=[EpochMetrics(**each._asdict()) for each in progress.epochs],
        step_losses=[(each.step, each.loss) for each in progress.step_losses],
        snapshots=[_describe(snapshot) for snapshot in progress.snapshots],
        damaged=progress.damaged,
        problem=progress.problem,
    )


def _describe(snapshot: Snapshot) -> EpochSnapshot:
    digit, filters = snapshot.digit, snapshot.filters
    values = digit._asdict() | {"pixels": _base64(digit.pixels)}
    first_layer = None
    if filters is not None:
        first_layer = FirstLayerFilters(**filters._asdict() | {"values": _base64(filters.values)})
    return EpochSnapshot(
        epoch=snapshot.epoch,
        step=snapshot.step,
        filters=first_layer,
        digit=FixedDigit(**values),
        confusion=snapshot.confusion,
    )


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
