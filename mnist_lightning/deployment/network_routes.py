"""The server's routes for the page's view inside a network."""

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Query
from fastapi.responses import JSONResponse, Response

from mnist_lightning.deployment import neighbors
from mnist_lightning.deployment.html_export import prediction_script
from mnist_lightning.deployment.network_description import describe
from mnist_lightning.deployment.problems import ProblemError, errors
from mnist_lightning.deployment.responses import ModelRegistry
from mnist_lightning.errors import UserError
from mnist_lightning.inference import Recognizer
from mnist_lightning.preprocessing.normalization import MEAN, STD

RUN = "The name of a run in /api/runs; the default is the run in /api/health."
MAX_KEPT = 4  # descriptions in memory


def add(app: FastAPI, models: ModelRegistry) -> None:
    """Add the routes."""
    loading = CapacityLimiter(1)
    problems = errors(403, 404, 409, 422, 500)

    def description(recognizer: Recognizer) -> dict[str, Any]:
        calibration = recognizer.calibration._asdict()
        return {"mean": MEAN, "std": STD} | calibration | describe(recognizer.network, exact=True)

    def neighborhood(recognizer: Recognizer) -> dict[str, Any]:
        return neighbors.describe(recognizer.network)

    def cached(compute: Callable[[Recognizer], dict[str, Any]]) -> Callable[[str | None], Response]:
        @lru_cache(MAX_KEPT)
        def body(recognizer: Recognizer) -> bytes:
            return bytes(JSONResponse(compute(recognizer)).body)

        def respond(run: str | None) -> Response:
            recognizer = models.recognizer(run)
            try:
                return Response(body(recognizer), media_type="application/json")
            except UserError as error:
                raise ProblemError(409, "not_traceable", str(error).partition(";")[0]) from None

        return respond

    network, neighbor_map = cached(description), cached(neighborhood)

    @app.get("/api/network", responses=problems)
    async def get_network(
        run: Annotated[str | None, Query(description=RUN)] = None,
    ) -> Response:
        """Return the steps and weights of a run's network, for the page."""
        return await to_thread.run_sync(network, run, limiter=loading)

    @app.get("/api/neighbors", responses=problems)
    async def get_neighbors(
        run: Annotated[str | None, Query(description=RUN)] = None,
    ) -> Response:
        """Return 500 training digits' features in a run's network, and their places in a map."""
        return await to_thread.run_sync(neighbor_map, run, limiter=loading)

    script = prediction_script()
    app.add_api_route(
        "/reading.js",
        lambda: Response(script, media_type="text/javascript"),
        include_in_schema=False,
    )
    image = neighbors.FILE.read_bytes()
    app.add_api_route(
        "/training_digits.png",
        lambda: Response(image, media_type="image/png"),
        include_in_schema=False,
    )
