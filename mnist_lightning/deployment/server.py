"""The HTTP server: the web page, and its JSON interface for programs."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

from mnist_lightning import inference
from mnist_lightning.deployment import network_routes, responses, watch_routes
from mnist_lightning.deployment.corrections import Correction, save_correction
from mnist_lightning.deployment.fine_tuning import FineTuner
from mnist_lightning.deployment.guard import Guard, handle_errors
from mnist_lightning.deployment.html_export import PAGE_TERMS, SERVED_SCRIPTS
from mnist_lightning.deployment.problems import ProblemError, errors
from mnist_lightning.deployment.reading_pool import BusyError, ReadingPool
from mnist_lightning.deployment.responses import ModelRegistry
from mnist_lightning.deployment.teaching_routes import add_teaching
from mnist_lightning.deployment.uploads import IMAGE_BODY, Bodies
from mnist_lightning.deployment.watched_runs import WatchedRuns
from mnist_lightning.errors import __version__
from mnist_lightning.evaluation.glossary import definitions
from mnist_lightning.preprocessing.extraction_process import ExtractedDigits, NoDigitError
from mnist_lightning.preprocessing.mnist_format import TooLargeError
from mnist_lightning.text import fill_template

PAGE = Path(__file__).parent / "static"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
# Descriptions of the options of a request.
RUN = "The name of a run in /api/runs; the default is the run in /api/health."
MULTIPLE = "Whether to look for several digits."

# The status and the type of the errors for an image; of others 422, unreadable.
PROBLEMS = {
    BusyError: (503, "busy"),
    TooLargeError: (413, "too_large"),
    NoDigitError: (422, "no_digit"),
}


def make_app(
    models: ModelRegistry,
    collect: Path | None,
    names: frozenset[str],
    tuner: FineTuner | None = None,
) -> FastAPI:
    """Make the application.

    Args:
        models: the networks of the runs.
        collect: the directory for corrected images, by true labels; None: they are not saved.
        names: the names of this server; see `hosts.py`.
        tuner: fine-tunes the networks on the corrected images; None: nobody can teach them.
    """
    pool, bodies = ReadingPool(), Bodies()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        pool.stop()
        if tuner is not None:
            tuner.stop()

    app = FastAPI(
        title="mnist_lightning",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    torch.set_num_threads(1)

    app.add_middleware(Guard, names=names)
    handle_errors(app)
    _add_information(app, models, collect is not None, tuner is not None)
    _add_prediction(app, models, bodies, pool)
    network_routes.add(app, models)
    watch_routes.add(app, WatchedRuns(models.run, models.root), can_draw=True)
    if collect is not None:
        _add_corrections(app, collect, bodies, pool)
    if tuner is not None:
        add_teaching(app, tuner)
    for file in sorted(PAGE.iterdir()):
        if file.suffix in TYPES:
            app.add_api_route(**_static_route(file, tuner is not None), include_in_schema=False)
    return app


def _add_information(app: FastAPI, models: ModelRegistry, collects: bool, teaches: bool) -> None:
    @app.get("/api/health", responses=errors(403, 500))
    async def health() -> responses.Health:
        """Return the state of the server and its default run."""
        run = models.run.folder.name
        return responses.Health(
            status="ok", version=__version__, run=run, collects=collects, teaches=teaches
        )

    @app.get("/api/runs", responses=errors(403, 500))
    def list_runs() -> list[responses.KnownRun]:
        """List the runs that can predict, or that are in training."""
        return [
            responses.known_run(run, ready=models.is_ready(run)) for run in models.known().values()
        ]


def _add_prediction(app: FastAPI, models: ModelRegistry, bodies: Bodies, pool: ReadingPool) -> None:
    loading = CapacityLimiter(1)  # a network that loads slowly must not delay other images

    problems = errors(403, 404, 408, 409, 413, 422, 500, 503)

    @app.post("/api/predict", openapi_extra=IMAGE_BODY, responses=problems)
    async def read_picture(
        request: Request,
        run: Annotated[str | None, Query(description=RUN)] = None,
        multiple: Annotated[Literal["auto", "true", "false"], Query(description=MULTIPLE)] = "auto",
    ) -> responses.Answer:
        """Read the digits in an image."""
        async with bodies.received(request) as content:
            start = time.perf_counter()
            image = await _find_digits(pool, content, inference.MULTIPLE[multiple], request)
        recognizer, name = models.default, run or models.run.folder.name
        if recognizer is None or name != models.run.folder.name:
            recognizer = await to_thread.run_sync(models.load, name, limiter=loading)
        predictions = await to_thread.run_sync(
            recognizer.read_digits, image.digits, limiter=pool.turns
        )
        return responses.Answer(
            run=name,
            width=image.width,
            height=image.height,
            digits=[responses.to_answer(prediction) for prediction in predictions],
            milliseconds=round(1000 * (time.perf_counter() - start), 2),
        )


async def _find_digits(
    pool: ReadingPool, content: bytes, multiple: bool | None, request: Request
) -> ExtractedDigits:
    try:
        return await pool.find_digits(content, multiple, request.is_disconnected)
    except (BusyError, ValueError) as error:
        status, kind = PROBLEMS.get(type(error), (422, "unreadable"))
        raise ProblemError(status, kind, str(error)) from None


def _add_corrections(app: FastAPI, directory: Path, bodies: Bodies, pool: ReadingPool) -> None:
    problems = errors(403, 408, 413, 422, 500, 503, 507)

    @app.post("/api/corrections", status_code=201, openapi_extra=IMAGE_BODY, responses=problems)
    async def keep(
        request: Request, label: Annotated[int, Query(ge=0, le=9, description="The true label.")]
    ) -> Correction:
        """Save an image of one digit under its true label."""
        async with bodies.received(request) as content:
            image = await _find_digits(pool, content, False, request)
        saved = await to_thread.run_sync(
            save_correction, directory, label, image.digits[0], limiter=pool.turns
        )
        return Correction(kept=saved)


def _static_route(file: Path, teaches: bool) -> dict[str, Any]:
    """Return the route of a static file, which is read once."""
    content, media_type = file.read_text(encoding="utf-8"), TYPES[file.suffix]
    if file.name == "index.html":
        content = fill_template(
            "deployment/static/index.html",
            offline=False,
            scripts=SERVED_SCRIPTS,
            teaches=teaches,
            terms=definitions(PAGE_TERMS),
        )
    paths = {"index.html": "/", "docs.html": "/docs", "watch.html": "/watch"}
    path = paths.get(file.name, f"/{file.name}")
    return {"path": path, "endpoint": lambda: Response(content, media_type=media_type)}
