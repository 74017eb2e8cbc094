"""HTTP connections with time limits, on top of uvicorn.

uvicorn has a timeout only between requests: a client that never sends a complete request occupies
a connection, and uvicorn's `limit_concurrency` counts it, so that 64 silent clients would block
everyone. Here each phase of a request has a total time limit, even if bytes still arrive. If there
are too many connections, the one that has waited longest for its client is closed.
"""

import asyncio
import time
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 500  # the usual limit of open files is 1,024
HEADER_SECONDS = 10.0  # from the connection, or the previous answer, to the end of the header
BODY_SECONDS = 35.0  # for the body; after 30 s the server responds that it was too slow
ANSWER_SECONDS = 120.0  # for the answer, including the time that the client takes to receive it
CHECK_SECONDS = 1.0
# Computing time for parsing a phase of a request: at the start, and per byte. A body of 3 MB that
# arrives 500 bytes at a time takes 0.05 microseconds per byte.
PARSING_SECONDS, PARSING_SECONDS_PER_BYTE = 0.2, 1e-6
CHUNK = 16_384  # bytes that are parsed at once


class TimedConnection(asyncio.Protocol):
    """A connection with time limits, around uvicorn's protocol in `_http`."""

    _open: ClassVar[dict["TimedConnection", None]] = {}

    def __init__(self, **arguments: Any) -> None:
        self._http = H11Protocol(**arguments)
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._spent = 0.0  # seconds of this thread for parsing the current phase
        self._received = 0  # bytes of the current phase
        self._phase: tuple[Any, Any] = (None, None)
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection; close another one if there are too many."""
        self._http.connection_made(transport)  # type: ignore[arg-type] # a Transport, as for uvicorn
        waiting = [connection for connection in self._open if connection.limit < ANSWER_SECONDS]
        self._open[self] = None
        if len(self._open) > MAX_CONNECTIONS:
            oldest = min(waiting, key=lambda connection: connection._since, default=self)
            oldest._http.transport.abort()
        self._check()

    def data_received(self, data: bytes) -> None:
        """Forward data until parsing takes too long: a body may arrive in chunks of one byte."""
        for start in range(0, len(data), CHUNK):
            if self._http.transport.is_closing():
                return
            start_time = time.thread_time()
            self._http.data_received(data[start : start + CHUNK])
            self._spent += time.thread_time() - start_time
            self._received += min(CHUNK, len(data) - start)
            self._note_phase()
            if self._spent > PARSING_SECONDS + PARSING_SECONDS_PER_BYTE * self._received:
                self._http.transport.abort()

    def eof_received(self) -> None:
        """Forward the end of the data."""
        self._http.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """Remove the connection."""
        self._open.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
        self._http.connection_lost(error)

    def pause_writing(self) -> None:
        """Forward the call."""
        self._http.pause_writing()

    def resume_writing(self) -> None:
        """Forward the call."""
        self._http.resume_writing()

    @property
    def limit(self) -> float:
        """The seconds that the current phase may take."""
        limits = {h11.IDLE: HEADER_SECONDS, h11.SEND_BODY: BODY_SECONDS}
        return limits.get(self._http.conn.their_state, ANSWER_SECONDS)

    def _note_phase(self) -> None:
        """Restart the timer if another phase or another request has started."""
        phase = (self._http.conn.their_state, self._http.cycle)
        if phase != self._phase:
            self._phase, self._since = phase, self._loop.time()
            self._spent, self._received = 0.0, 0

    def _check(self) -> None:
        """Close the connection if its phase takes too long; else check again in a second."""
        self._note_phase()
        if self._loop.time() - self._since > self.limit:
            self._http.transport.abort()
        else:
            self._timer = self._loop.call_later(CHECK_SECONDS, self._check)
