"""The server: a page, and the same reading for programs, as JSON."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mnist_lightning import __version__, predict, templates
from mnist_lightning.web import answers
from mnist_lightning.web.answers import Answer, Health, KnownRun, ProblemError, Readers

MOST_BYTES = 25_000_000
MOST_SECONDS = 30  # for a request to come
LOCAL = {"127.0.0.1", "localhost", "::1"}  # this machine's own names
PAGE = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
# Nothing of the page comes from elsewhere, and nothing that is shown in it can make it so.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
POLICY += "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


async def _content(request: Request) -> bytes:
    """Read a request's body, no longer than is allowed."""
    content = bytearray()
    try:
        async with asyncio.timeout(MOST_SECONDS):
            async for part in request.stream():
                content += part
                if len(content) > MOST_BYTES:
                    most = f"the most is {MOST_BYTES // 10**6} megabytes"
                    raise ProblemError(413, "too_large", f"the picture is too large: {most}")
    except TimeoutError:
        said = f"the picture did not come within {MOST_SECONDS} seconds"
        raise ProblemError(408, "too_slow", said) from None
    if not content:
        raise ProblemError(422, "no_picture", "the body is empty: send a picture's bytes")
    return bytes(content)


PICTURE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "the bytes of a picture file: PNG, JPEG, GIF, WebP, TIFF, BMP …",
        "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def _guard(app: FastAPI, local: bool) -> None:
    """Refuse other sites' pages; have answers say what a browser may do with them."""

    @app.middleware("http")
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if local and request.url.hostname not in LOCAL:
            what = "this server answers to this machine's own names only"
            return ProblemError(403, "foreign_host", what).response()
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
            return ProblemError(403, "foreign_origin", "another site's page may not ask").response()
        try:
            response = await call_next(request)
        except ClientDisconnect:  # nobody is left to be told
            return Response(status_code=499)
        except Exception as error:
            print(f"{request.url.path}: {type(error).__name__}: {error}", file=sys.stderr)
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


def make_app(readers: Readers, collect: Path | None, local: bool) -> FastAPI:
    """Make the application.

    Args:
        readers: the runs that can be asked.
        collect: where pictures that were misread are kept, by their true labels; None: nowhere.
        local: whether only this machine is served; another name that points here, as a foreign
            page may have, is refused then.
    """
    app = FastAPI(title="mnist_lightning", version=__version__, docs_url=None, redoc_url=None)
    # Reading is work for a processor, and a large picture takes memory.
    limiter = CapacityLimiter(2)
    torch.set_num_threads(1)

    _guard(app, local)
    _tell_problems(app)
    _tell_of_runs(app, readers, collects=collect is not None)
    _read(app, readers, limiter)
    if collect is not None:
        _collect(app, collect, limiter)
    for file in sorted(PAGE.iterdir()):
        if file.suffix in TYPES:
            app.add_api_route(**_static(file), include_in_schema=False)
    return app


def _tell_of_runs(app: FastAPI, readers: Readers, collects: bool) -> None:
    @app.get("/api/health")
    async def health() -> Health:
        """Tell that the server is up, and whom it asks."""
        return Health(
            status="ok",
            version=__version__,
            run=readers.default.folder.name,
            collects=collects,
        )

    @app.get("/api/runs")
    def list_runs() -> list[KnownRun]:
        """List the runs that can be asked."""
        return [answers.known_run(run) for run in readers.known().values()]


def _read(app: FastAPI, readers: Readers, limiter: CapacityLimiter) -> None:
    @app.post("/api/predict", openapi_extra=PICTURE)
    async def read_picture(
        request: Request,
        run: str | None = None,
        multiple: Literal["auto", "true", "false"] = "auto",
    ) -> Answer:
        """Read the digits in a picture. `multiple` tells whether there are several."""
        content = await _content(request)
        several = predict.MULTIPLE[multiple]
        began = time.perf_counter()
        readings, width, height = await to_thread.run_sync(
            lambda: answers.read(readers[run], content, several), limiter=limiter
        )
        return Answer(
            run=run or readers.default.folder.name,
            width=width,
            height=height,
            digits=[answers.described(reading) for reading in readings],
            milliseconds=round(1000 * (time.perf_counter() - began), 2),
        )


def _collect(app: FastAPI, folder: Path, limiter: CapacityLimiter) -> None:
    @app.post("/api/corrections", status_code=201, openapi_extra=PICTURE)
    async def keep(request: Request, label: Annotated[int, Query(ge=0, le=9)]) -> dict[str, str]:
        """Keep a picture of one digit under its true label."""
        content = await _content(request)
        kept = await to_thread.run_sync(answers.keep, folder, label, content, limiter=limiter)
        return {"kept": kept}


def _static(file: Path) -> dict[str, Any]:
    """The route of one of the page's files, which is read once."""
    content, media_type = file.read_text(encoding="utf-8"), TYPES[file.suffix]
    if file.name == "index.html":
        content = templates.fill("web/page/index.html", offline=False)
    path = {"index.html": "/", "docs.html": "/docs"}.get(file.name, f"/{file.name}")
    return {"path": path, "endpoint": lambda: Response(content, media_type=media_type)}
