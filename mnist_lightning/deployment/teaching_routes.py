"""The requests of `serve --teach`: list and remove corrected digits, start and stop learning."""

from functools import partial
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, FastAPI, Query, Request

from mnist_lightning.deployment import hosts
from mnist_lightning.deployment.corrections import (
    CorrectionList,
    list_corrections,
    remove_correction,
)
from mnist_lightning.deployment.fine_tuning import FineTuner
from mnist_lightning.deployment.fine_tuning_state import FineTuningState
from mnist_lightning.deployment.problems import ProblemError, errors

RUN = "The run whose network is copied and fine-tuned; the default is the run in /api/health."
KEPT = "The path of an image, as /api/corrections returns it."


def _require_loopback(request: Request) -> None:
    """Refuse a request that came through another name, for example through a reverse proxy."""
    if not hosts.is_loopback(request.headers.get("host")):
        message = "teaching is possible only on this machine: open the address that serve printed"
        raise ProblemError(403, "not_local", message)


def add_teaching(app: FastAPI, tuner: FineTuner) -> None:
    """Add the requests to an application."""
    directory = tuner.settings.folder
    in_thread = partial(to_thread.run_sync, limiter=CapacityLimiter(1))
    local = [Depends(_require_loopback)]

    @app.get("/api/corrections", responses=errors(403, 500), dependencies=local)
    async def list_newest() -> CorrectionList:
        """Count the corrected digits, and list the newest ones."""
        return await in_thread(list_corrections, directory)

    problems = errors(403, 404, 422, 500, 507)

    @app.delete("/api/corrections", responses=problems, dependencies=local)
    async def remove(kept: Annotated[str, Query(description=KEPT)]) -> CorrectionList:
        """Remove a corrected digit."""
        await in_thread(remove_correction, directory, kept)
        return await in_thread(list_corrections, directory)

    @app.get("/api/learn", responses=errors(403, 500), dependencies=local)
    async def read_state() -> FineTuningState:
        """Return the state of the last fine-tuning."""
        return tuner.state

    problems = errors(403, 404, 409, 422, 500)

    @app.post("/api/learn", status_code=202, responses=problems, dependencies=local)
    async def learn(
        run: Annotated[str | None, Query(description=RUN)] = None,
    ) -> FineTuningState:
        """Fine-tune a copy of a run's network on the corrected digits."""
        return await in_thread(tuner.start, run)

    @app.post("/api/learn/cancel", responses=errors(403, 409, 500), dependencies=local)
    async def cancel() -> FineTuningState:
        """Stop the fine-tuning."""
        return await to_thread.run_sync(tuner.cancel)
