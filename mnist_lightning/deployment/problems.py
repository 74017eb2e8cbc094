"""The errors that the server reports, and their description."""

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel


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
    409: "The network of the run is not ready, or the request does not fit the current state.",
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


class ClientGoneError(Exception):
    """The client closed its connection before the response."""
