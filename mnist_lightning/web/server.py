"""The server: a page, and the same reading for programs, as JSON."""

import asyncio
import base64
import hashlib
import io
import sys
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mnist_lightning import __version__, images, predict, runs
from mnist_lightning.errors import UserError
from mnist_lightning.files import write_atomically
from mnist_lightning.images import png
from mnist_lightning.ink import upright
from mnist_lightning.predict import Reading, Recogniser
from mnist_lightning.runs import Run

MOST_BYTES = 25_000_000
MOST_SECONDS = 30  # for a request to come
MOST_KEPT = 10_000  # corrected pictures in a folder
LOCAL = {"127.0.0.1", "localhost", "::1"}  # this machine's own names
PAGE = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
# Nothing of the page comes from elsewhere, and nothing that is shown in it can make it so.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
POLICY += "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class Digit(BaseModel):
    """A digit in a picture."""

    label: int
    confidence: float
    probabilities: list[float]
    box: tuple[int, int, int, int]
    ink: Literal["dark", "light"]
    wide: bool
    unsure: bool
    input: str


class Answer(BaseModel):
    """What was read in a picture: its digits in reading order, boxes in its pixels."""

    run: str
    width: int
    height: int
    digits: list[Digit]
    milliseconds: float


class KnownRun(BaseModel):
    """A run that can be asked."""

    name: str
    dataset: str
    network: str
    val_accuracy: float | None


class Health(BaseModel):
    """Whether the server is up, which run it asks by itself, and whether it collects."""

    status: Literal["ok"]
    version: str
    run: str
    collects: bool


class ProblemError(Exception):
    """What a client is told in place of an answer."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        self.status = status
        self.kind = kind
        self.message = message

    def response(self) -> JSONResponse:
        """The problem as JSON."""
        return JSONResponse({"error": {"type": self.kind, "message": self.message}}, self.status)


class Readers:
    """The runs that can be asked, by the names of their folders: the default one, and others.

    Args:
        run: what is asked if nothing else is said.
        checkpoint: one of its checkpoints; None: its best.
        root: the folder of the others. One of the same name as the default's cannot be asked.
    """

    def __init__(self, run: Run, checkpoint: Path | None, root: Path) -> None:
        self.default = run
        self.root = root
        self._first = predict.load(checkpoint or run.folder, root)
        self._load = lru_cache(maxsize=4)(lambda name: predict.load(root / name, root))

    def known(self) -> dict[str, Run]:
        """The default run, and the others that have a checkpoint, by name."""
        others = {run.folder.name: run for run in runs.runs(self.root) if run.best.is_file()}
        return others | {self.default.folder.name: self.default}

    def __getitem__(self, name: str | None) -> Recogniser:
        """Load a run's network.

        Raises:
            ProblemError: there is no such run, or it cannot be asked.
        """
        if not name or name == self.default.folder.name:
            return self._first
        if name not in self.known():
            raise ProblemError(404, "unknown_run", f"there is no run {name!r} here; see /api/runs")
        try:
            return self._load(name)
        except UserError as error:
            raise ProblemError(409, "unusable_run", str(error)) from None


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


def _read(
    recogniser: Recogniser, content: bytes, multiple: bool | None
) -> tuple[list[Reading], int, int]:
    try:
        picture = images.read(io.BytesIO(content))
    except images.TooLargeError as error:
        raise ProblemError(413, "too_large", str(error)) from None
    except ValueError as error:
        raise ProblemError(422, "unreadable", str(error)) from None
    try:
        turned = upright(picture)
        return recogniser.read(turned, multiple), turned.width, turned.height
    except ValueError as error:
        raise ProblemError(422, "no_digit", str(error)) from None


def _described(reading: Reading) -> Digit:
    digit = reading.digit
    return Digit(
        label=reading.label,
        confidence=reading.confidence,
        probabilities=reading.probabilities.tolist(),
        box=digit.box,
        ink="dark" if digit.dark else "light",
        wide=digit.wide,
        unsure=reading.unsure,
        input="data:image/png;base64," + base64.b64encode(png(digit.ink)).decode(),
    )


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

    @app.get("/api/health")
    async def health() -> Health:
        """Tell that the server is up, and whom it asks."""
        return Health(
            status="ok",
            version=__version__,
            run=readers.default.folder.name,
            collects=collect is not None,
        )

    @app.get("/api/runs")
    def list_runs() -> list[KnownRun]:
        """List the runs that can be asked."""
        return [_known(run) for run in readers.known().values()]

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
            lambda: _read(readers[run], content, several), limiter=limiter
        )
        return Answer(
            run=run or readers.default.folder.name,
            width=width,
            height=height,
            digits=[_described(reading) for reading in readings],
            milliseconds=round(1000 * (time.perf_counter() - began), 2),
        )

    if collect is not None:

        @app.post("/api/corrections", status_code=201, openapi_extra=PICTURE)
        async def keep(
            request: Request, label: Annotated[int, Query(ge=0, le=9)]
        ) -> dict[str, str]:
            """Keep a picture of one digit under its true label."""
            content = await _content(request)
            return {
                "kept": await to_thread.run_sync(_keep, collect, label, content, limiter=limiter)
            }

    for file in sorted(PAGE.iterdir()):
        if file.suffix in TYPES:
            app.add_api_route(**_static(file), include_in_schema=False)
    return app


def _static(file: Path) -> dict[str, Any]:
    """The route of one of the page's files, which is read once."""
    content, media_type = file.read_bytes(), TYPES[file.suffix]
    path = {"index.html": "/", "docs.html": "/docs"}.get(file.name, f"/{file.name}")
    return {"path": path, "endpoint": lambda: Response(content, media_type=media_type)}


def _known(run: Run) -> KnownRun:
    summary = run.summary()
    network = summary.get("network")
    path = network.get("class_path", "") if isinstance(network, dict) else ""
    accuracy = summary.get("val/accuracy")
    return KnownRun(
        name=run.folder.name,
        dataset=str(summary.get("dataset", "unknown")),
        network=str(path).rsplit(".", 1)[-1],
        val_accuracy=accuracy if isinstance(accuracy, float) else None,
    )


def _keep(folder: Path, label: int, content: bytes) -> str:
    """Keep what a network saw of a picture: what a client sent may be anything besides."""
    try:
        (digit,) = images.find_digits(images.read(io.BytesIO(content)), multiple=False)
    except ValueError as error:
        raise ProblemError(422, "unreadable", str(error)) from None
    place = folder / str(label)
    name = f"{hashlib.sha256(digit.ink.tobytes()).hexdigest()[:16]}.png"
    try:
        place.mkdir(parents=True, exist_ok=True)
        full = sum(1 for _ in place.iterdir()) >= MOST_KEPT
        if not full:
            write_atomically(png(digit.ink), place / name)
    except OSError as error:
        said = f"the server could not keep it: {(error.strerror or str(error)).lower()}"
        raise ProblemError(507, "not_kept", said) from None
    if full:
        raise ProblemError(507, "full", f"there are {MOST_KEPT:,} pictures of a {label} already")
    return f"{label}/{name}"
