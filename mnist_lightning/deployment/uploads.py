"""Receive the images that clients upload, within limits of size, time and memory."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio import CapacityLimiter, to_thread
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from mnist_lightning.deployment.problems import ProblemError

MAX_BYTES = 25_000_000
MAX_SECONDS = 30  # for a request to arrive
IDLE_SECONDS = 2  # between two parts of a request: its first part occupies memory meanwhile
MAX_TOTAL_BYTES = 200_000_000  # bytes of all requests that arrive, wait, or are read
FIELD = b"file"  # of a form: its image
# Computing time for parsing a form. A photo of 25 MB takes 0.02 s; a file of the same size in which
# almost every line looks like the boundary takes 3.5 s.
FORM_SECONDS = 0.5
CHUNK = 65_536  # bytes of a form that are parsed at once

IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "An image file: PNG, JPEG, GIF, WebP, TIFF, BMP … Send either its bytes, "
        "or a form with one part, `file`. The bytes may have any other content type.",
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "required": ["file"],
                    "additionalProperties": False,
                }
            },
        },
    }
}

# Its warnings are about requests: a client could fill the terminal with them.
logging.getLogger("python_multipart").addHandler(logging.NullHandler())


class Bodies:
    """Receives the bodies of requests, with limits for size, time and total memory."""

    def __init__(self) -> None:
        self._total = 0
        self._parsing = CapacityLimiter(1)

    @asynccontextmanager
    async def received(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the image of a request; it counts as memory in use until the end of the block.

        Raises:
            ProblemError: the body exceeds a limit, is empty, or is not a form with one file.
        """
        content = bytearray()
        try:
            await self._receive(request, content)
            kind, options = parse_options_header(request.headers.get("content-type"))
            if kind.lower() == b"multipart/form-data":
                boundary = options.get(b"boundary", b"")
                image = await to_thread.run_sync(
                    extract_file, content, boundary, limiter=self._parsing
                )
            else:
                image = bytes(content)
            if not image:
                raise ProblemError(422, "no_picture", "the body is empty: send an image file")
            yield image
        finally:
            self._total -= len(content)

    async def _receive(self, request: Request, content: bytearray) -> None:
        try:
            async with asyncio.timeout(MAX_SECONDS), asyncio.timeout(IDLE_SECONDS) as idle:
                async for part in request.stream():
                    idle.reschedule(asyncio.get_running_loop().time() + IDLE_SECONDS)
                    content += part
                    self._total += len(part)
                    if len(content) > MAX_BYTES:
                        limit = f"the limit is {MAX_BYTES // 10**6} megabytes"
                        raise ProblemError(413, "too_large", f"the image is too large: {limit}")
                    if self._total > MAX_TOTAL_BYTES:
                        raise ProblemError(503, "busy", "too many uploads at once; try again later")
        except TimeoutError:
            message = f"the upload stopped, or took more than {MAX_SECONDS} s; try again"
            raise ProblemError(408, "too_slow", message) from None


class InvalidFormError(ProblemError):
    """A form is not what the server expects."""

    def __init__(self, problem: str) -> None:
        fix = "send one part with the name `file`, as `curl -F file=@seven.png` does"
        fix += "; options belong in the address"
        super().__init__(422, "invalid_form", f"invalid form: {problem}; {fix}")


def extract_file(content: bytes | bytearray, boundary: bytes) -> bytes:
    """Return the file in a `multipart/form-data` body with a single part.

    Raises:
        InvalidFormError: the form is invalid, has another part, or takes too long to parse.
    """
    if not boundary:
        raise InvalidFormError("the Content-Type has no boundary")
    part = _SinglePart()
    start = time.thread_time()
    try:
        parser = MultipartParser(boundary, part.callbacks)
        for position in range(0, len(content), CHUNK):
            parser.write(bytes(content[position : position + CHUNK]))
            if time.thread_time() - start > FORM_SECONDS:
                raise InvalidFormError("the file looks too much like the boundary")
    except FormParserError:
        raise InvalidFormError("it does not follow RFC 7578") from None
    if not part.is_complete:
        raise InvalidFormError("it has no end")
    return b"".join(part.pieces)


class _SinglePart:
    """Collects the only part of a form, as a parser finds it."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.is_complete = False
        self._started = False
        self._field, self._value = b"", b""  # of the current header
        self._name: bytes | None = None

    @property
    def callbacks(self) -> Any:
        """The functions that the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_field,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._check_name,
            "on_part_data": self._add_data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if self._started:
            raise InvalidFormError("it has more than one part")
        self._started = True

    def _add_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._name = parse_options_header(self._value)[1].get(b"name")
        self._field, self._value = b"", b""

    def _check_name(self) -> None:
        if self._name != FIELD:
            raise InvalidFormError("its part has another name or none")

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self.pieces.append(data[start:end])

    def _end(self) -> None:
        self.is_complete = self._started
