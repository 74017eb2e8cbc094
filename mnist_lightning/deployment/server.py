"""The HTTP server: the web page, and its JSON interface for programs."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mnist_lightning import inference, templating
from mnist_lightning.deployment import hosts, service
from mnist_lightning.deployment.reading_pool import BusyError, ClientGoneError, ReadingPool
from mnist_lightning.deployment.service import Answer, Health, KnownRun, ModelRegistry, ProblemError
from mnist_lightning.errors import __version__
from mnist_lightning.preprocessing.extraction_process import Found
from mnist_lightning.text import say

MOST_BYTES = 25_000_000
MOST_SECONDS = 30  # for a request to arrive
IDLE_SECONDS = 2  # between two parts of it: what has arrived takes the place of others
MOST_HELD = 200_000_000  # bytes of all requests that are received, wait, or are read
PAGE = Path(__file__).parent / "static"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
# Nothing of the page comes from elsewhere, and nothing that is shown in it can make it so.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
POLICY += "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class Bodies:
    """Receives the bodies of requests, with limits for their size, their time and their sum."""

    def __init__(self) -> None:
        self._held = 0

    @asynccontextmanager
    async def received(self, request: Request) -> AsyncIterator[bytes]:
        """Give a request's body; it counts as held until the end of the block."""
        content = bytearray()
        try:
            await self._receive(request, content)
            if not content:
                raise ProblemError(422, "no_picture", "the body is empty: send a picture's bytes")
            yield bytes(content)
        finally:
            self._held -= len(content)

    async def _receive(self, request: Request, content: bytearray) -> None:
        try:
            async with asyncio.timeout(MOST_SECONDS):
                parts = aiter(request.stream())
                while True:
                    async with asyncio.timeout(IDLE_SECONDS):
                        part = await anext(parts, None)
                    if part is None:
                        break
                    content += part
                    self._held += len(part)
                    if len(content) > MOST_BYTES:
                        most = f"the most is {MOST_BYTES // 10**6} megabytes"
                        raise ProblemError(413, "too_large", f"the picture is too large: {most}")
                    if self._held > MOST_HELD:
                        raise ProblemError(503, "busy", "too many images arrive; try again later")
        except TimeoutError:
            said = f"the picture did not arrive within {MOST_SECONDS} seconds, or stopped arriving"
            raise ProblemError(408, "too_slow", said) from None


PICTURE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "the bytes of a picture file: PNG, JPEG, GIF, WebP, TIFF, BMP …",
        "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def _guard(app: FastAPI, names: frozenset[str]) -> None:
    """Refuse other sites' pages; have answers say what a browser may do with them."""

    @app.middleware("http")
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        # HTTP/1.0 allows a request without Host; no browser sends one.
        if not hosts.is_own(request.headers.get("host"), names):
            what = "this server answers to its own names only; for another one start it with "
            return ProblemError(403, "foreign_host", f"{what}--allow_host NAME").response()
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
            return ProblemError(403, "foreign_origin", "another site's page may not ask").response()
        try:
            response = await call_next(request)
        except (ClientDisconnect, ClientGoneError):  # nobody is left to be told
            return Response(status_code=499)
        except Exception as error:
            say(f"{request.url.path}: {type(error).__name__}: {error}", file=sys.stderr)
            said = "the server failed at this; its terminal says how"
            return ProblemError(500, "failure", said).response()
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        return response


def _tell_problems(app: FastAPI) -> None:
    """Give every problem the same form."""

    @app.exception_handler(ProblemError)
    async def told(request: Request, problem: ProblemError) -> JSONResponse:
        return problem.response()

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        kind = str(error.detail).lower().replace(" ", "_")
        what = f"{request.method} {request.url.path}: {str(error.detail).lower()}; see /docs"
        return ProblemError(error.status_code, kind, what).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        wrong = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        return ProblemError(422, "invalid", wrong).response()


def make_app(models: ModelRegistry, collect: Path | None, names: frozenset[str]) -> FastAPI:
    """Make the application.

    Args:
        models: the networks of the runs.
        collect: where pictures that were misread are kept, by their true labels; None: nowhere.
        names: the names of this server; see `hosts.py`.
    """
    pool, bodies = ReadingPool(), Bodies()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        pool.stop()

    app = FastAPI(
        title="mnist_lightning",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    torch.set_num_threads(1)

    _guard(app, names)
    _tell_problems(app)
    _tell_of_runs(app, models, collects=collect is not None)
    _read(app, models, bodies, pool)
    if collect is not None:
        _collect(app, collect, bodies, pool)
    for file in sorted(PAGE.iterdir()):
        if file.suffix in TYPES:
            app.add_api_route(**_static(file), include_in_schema=False)
    return app


def _tell_of_runs(app: FastAPI, models: ModelRegistry, collects: bool) -> None:
    @app.get("/api/health")
    async def health() -> Health:
        """Tell that the server is up, and whom it asks."""
        return Health(
            status="ok",
            version=__version__,
            run=models.run.folder.name,
            collects=collects,
        )

    @app.get("/api/runs")
    def list_runs() -> list[KnownRun]:
        """List the runs that can be asked."""
        return [service.known_run(run) for run in models.known().values()]


def _read(app: FastAPI, models: ModelRegistry, bodies: Bodies, pool: ReadingPool) -> None:
    loading = CapacityLimiter(1)  # a network that takes long to load delays no other image

    @app.post("/api/predict", openapi_extra=PICTURE)
    async def read_picture(
        request: Request,
        run: str | None = None,
        multiple: Literal["auto", "true", "false"] = "auto",
    ) -> Answer:
        """Read the digits in a picture. `multiple` tells whether there are several."""
        async with bodies.received(request) as content:
            began = time.perf_counter()
            several = inference.MULTIPLE[multiple]
            found = await _find_digits(pool, content, several, request)
        recognizer = models.default
        if run is not None and not models.is_default(run):
            recognizer = await to_thread.run_sync(models.load, run, limiter=loading)
        readings = await to_thread.run_sync(
            recognizer.read_digits, found.digits, limiter=pool.turns
        )
        return Answer(
            run=run or models.run.folder.name,
            width=found.width,
            height=found.height,
            digits=[service.described(reading) for reading in readings],
            milliseconds=round(1000 * (time.perf_counter() - began), 2),
        )


async def _find_digits(
    pool: ReadingPool, content: bytes, multiple: bool | None, request: Request
) -> Found:
    try:
        return await pool.find_digits(content, multiple, request.is_disconnected)
    except (BusyError, ValueError) as error:
        raise service.problem(error) from None


def _collect(app: FastAPI, folder: Path, bodies: Bodies, pool: ReadingPool) -> None:
    @app.post("/api/corrections", status_code=201, openapi_extra=PICTURE)
    async def keep(request: Request, label: Annotated[int, Query(ge=0, le=9)]) -> dict[str, str]:
        """Keep a picture of one digit under its true label."""
        async with bodies.received(request) as content:
            found = await _find_digits(pool, content, False, request)
        kept = await to_thread.run_sync(
            service.keep, folder, label, found.digits[0], limiter=pool.turns
        )
        return {"kept": kept}


def _static(file: Path) -> dict[str, Any]:
    """The route of one of the page's files, which is read once."""
    content, media_type = file.read_text(encoding="utf-8"), TYPES[file.suffix]
    if file.name == "index.html":
        content = templating.fill("deployment/static/index.html", offline=False)
    path = {"index.html": "/", "docs.html": "/docs"}.get(file.name, f"/{file.name}")
    return {"path": path, "endpoint": lambda: Response(content, media_type=media_type)}
