"""Refuse requests of other sites, set security headers, and report every error in one form."""

import sys

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mnist_lightning.deployment import hosts
from mnist_lightning.deployment.problems import ClientGoneError, ProblemError
from mnist_lightning.text import say

# The page loads nothing from other sites, and its contents cannot change that.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
POLICY += "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
SECURITY_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses requests of other sites, sets security headers, and reports unexpected errors.

    An ASGI middleware: Starlette's `BaseHTTPMiddleware` starts tasks for every request, which
    takes a millisecond.
    """

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if problem := self._problem(Headers(scope=scope)):
            await problem.response()(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # uvicorn sends the header of the response to GET
            scope = {**scope, "method": "GET"}

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        try:
            await self._app(scope, receive, send_guarded)
        except (ClientDisconnect, ClientGoneError):  # no client to report to
            await Response(status_code=499)(scope, receive, send)
        except Exception as error:
            say(f"{scope['path']}: {type(error).__name__}: {error}", file=sys.stderr)
            message = "internal error; the terminal of the server shows the reason"
            await ProblemError(500, "failure", message).response()(scope, receive, send)

    def _problem(self, headers: Headers) -> ProblemError | None:
        # HTTP/1.0 allows a request without Host; no browser sends one.
        if not hosts.is_own(headers.get("host"), self._names):
            message = "the Host header is not a name of this server; to allow it, start serve with "
            return ProblemError(403, "foreign_host", f"{message}--allow_host NAME")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != headers.get("host"):
            return ProblemError(403, "foreign_origin", "requests from other websites are refused")
        return None


def handle_errors(app: FastAPI) -> None:
    """Report every error in the same form."""

    @app.exception_handler(ProblemError)
    async def report(request: Request, problem: ProblemError) -> JSONResponse:
        return problem.response()

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = _allowed(request)
            if request.method == "OPTIONS":
                return Response(status_code=204, headers=headers)
        kind = str(error.detail).lower().replace(" ", "_")
        message = f"{request.method} {request.url.path}: {str(error.detail).lower()}; see /docs"
        return ProblemError(error.status_code, kind, message).response(headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        message = "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in error.errors())
        return ProblemError(422, "invalid", message).response()


def _allowed(request: Request) -> str:
    """Return the methods of all routes of a path, and those that the server adds to each path."""
    scope = request.scope
    routes = [route for route in request.app.routes if route.matches(scope)[0] != Match.NONE]
    methods = sorted({method for route in routes for method in route.methods})
    added = ["HEAD", "OPTIONS"] if "GET" in methods else ["OPTIONS"]
    return ", ".join(dict.fromkeys([*methods, *added]))
