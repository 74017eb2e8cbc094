"""The server's routes for the page's view inside a network."""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Query
from fastapi.responses import Response

from mnist_lightning.deployment import neighbors
from mnist_lightning.deployment.html_export import prediction_script
from mnist_lightning.deployment.network_description import describe
from mnist_lightning.deployment.responses import ModelRegistry, ProblemError, errors
from mnist_lightning.errors import UserError
from mnist_lightning.inference import Recognizer
from mnist_lightning.preprocessing.normalization import MEAN, STD

RUN = "The name of a run in /api/runs; the default is the run in /api/health."
MAX_KEPT = 4  # descriptions in memory


class NetworkViews:
    """The responses for the page's view inside a network, computed once for each network."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models = models
        self._describe = lru_cache(MAX_KEPT)(_describe)
        self._describe_neighbors = lru_cache(MAX_KEPT)(_describe_neighbors)

    def network(self, run: str | None) -> Response:
        """Return the steps and weights of a run's network."""
        return self._respond(self._describe, run)

    def neighbors(self, run: str | None) -> Response:
        """Return the training digits' features in a run's network, and their places in a map."""
        return self._respond(self._describe_neighbors, run)

    def _respond(self, describe: Callable[[Recognizer], bytes], run: str | None) -> Response:
        is_default = run is None or run == self._models.run.folder.name
        recognizer = self._models.default if is_default else self._models.load(run or "")
        try:
            return Response(describe(recognizer), media_type="application/json")
        except UserError as error:
            raise ProblemError(409, "not_traceable", str(error).partition(";")[0]) from None


def _describe(recognizer: Recognizer) -> bytes:
    constants = {"mean": MEAN, "std": STD} | recognizer.calibration._asdict()
    return json.dumps(constants | describe(recognizer.network, exact=True)).encode()


def _describe_neighbors(recognizer: Recognizer) -> bytes:
    return json.dumps(neighbors.describe(recognizer.network)).encode()


def add(app: FastAPI, models: ModelRegistry) -> None:
    """Add the routes."""
    views, loading = NetworkViews(models), CapacityLimiter(1)
    problems = errors(403, 404, 409, 422, 500)

    @app.get("/api/network", responses=problems)
    async def network(run: Annotated[str | None, Query(description=RUN)] = None) -> Response:
        """Return the steps and weights of a run's network, for the page."""
        return await to_thread.run_sync(views.network, run, limiter=loading)

    @app.get("/api/neighbors", responses=problems)
    async def neighbor_map(run: Annotated[str | None, Query(description=RUN)] = None) -> Response:
        """Return 500 training digits' features in a run's network, and their places in a map."""
        return await to_thread.run_sync(views.neighbors, run, limiter=loading)

    files = {
        "/reading.js": (prediction_script().encode(), "text/javascript"),
        "/training_digits.png": (neighbors.FILE.read_bytes(), "image/png"),
    }
    for path, (content, media_type) in files.items():
        app.add_api_route(path, _constant(content, media_type), include_in_schema=False)


def _constant(content: bytes, media_type: str) -> Callable[[], Response]:
    """Return an endpoint that always responds with the same content."""
    return lambda: Response(content, media_type=media_type)
