"""The server's processes that read images, with queues and time limits."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

from mnist_lightning.preprocessing.extraction_process import Found, ReadingProcess

QUICK_IMAGES = 2  # read at the same time
QUICK_SECONDS = 1.0  # a photo of 12 megapixels takes 0.3 s
# Read at the same time beyond QUICK_SECONDS; further ones are refused. Together with the quick
# ones they bound the memory: 4 processes of at most `reading_process.MAX_MEMORY`.
SLOW_IMAGES = 2
MAX_WAITING = 64  # images in memory, waiting for their turn
CHECK_SECONDS = 0.5  # between two looks at whether the client of a slow image is still there


T = TypeVar("T")


class BusyError(Exception):
    """The server has more work than it accepts."""


class ClientGoneError(Exception):
    """The client closed its connection before its answer."""


class ReadingPool:
    """Starts, lends and replaces reading processes.

    An image has QUICK_SECONDS of one of QUICK_IMAGES turns. If it takes longer, it passes its turn
    to the next one and continues as one of SLOW_IMAGES, until `reading_process.MAX_SECONDS`.
    """

    def __init__(self) -> None:
        self.turns = CapacityLimiter(QUICK_IMAGES)
        self._slow = CapacityLimiter(SLOW_IMAGES)
        self._threads = CapacityLimiter(QUICK_IMAGES + SLOW_IMAGES)
        self._idle: list[ReadingProcess] = []
        self._waiting = 0

    async def find_digits(
        self,
        content: bytes,
        multiple: bool | None,
        client_is_gone: Callable[[], Awaitable[bool]],
    ) -> Found:
        """Find the digits in an image file.

        Raises:
            BusyError, ClientGoneError: see there.
            ValueError: as `reading_process.find_digits`.
        """
        if self._waiting >= MAX_WAITING:
            raise BusyError(f"{MAX_WAITING} images are waiting already; try again later")
        self._waiting += 1
        try:
            async with self.turns:
                if await client_is_gone():
                    raise ClientGoneError
                process, found = await self._in_thread(self._begin, content, multiple)
        finally:
            self._waiting -= 1
        if found is None:
            found = await self._answer_slowly(process, client_is_gone)
        return found

    async def _answer_slowly(
        self, process: ReadingProcess, client_is_gone: Callable[[], Awaitable[bool]]
    ) -> Found:
        if self._slow.available_tokens < 1:
            process.stop()
            raise BusyError(f"{SLOW_IMAGES} large images are being read; try again in 20 seconds")
        async with self._slow:
            while True:
                found = await self._in_thread(self._answer, process, CHECK_SECONDS)
                if found is not None:
                    return found
                if await client_is_gone():
                    process.stop()
                    raise ClientGoneError

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        # Turns and slow images bound the threads, so that they need no limit of their own.
        return await to_thread.run_sync(function, *arguments, limiter=self._threads)

    def _begin(self, content: bytes, multiple: bool | None) -> tuple[ReadingProcess, Found | None]:
        process = self._take()
        process.send(content, multiple)
        return process, self._answer(process, QUICK_SECONDS)

    def _answer(self, process: ReadingProcess, seconds: float) -> Found | None:
        """Wait for the answer; keep the process if it has finished."""
        try:
            found = process.answer(seconds)
        except ValueError:
            self._give_back(process)
            raise
        except BaseException:
            process.stop()
            raise
        if found is not None:
            self._give_back(process)
        return found

    def _take(self) -> ReadingProcess:
        while self._idle:
            process = self._idle.pop()
            if process.alive:
                return process
            process.stop()
        return ReadingProcess()

    def _give_back(self, process: ReadingProcess) -> None:
        if process.alive and len(self._idle) < QUICK_IMAGES:
            self._idle.append(process)
        else:
            process.stop()

    def stop(self) -> None:
        """Stop all processes that are idle."""
        while self._idle:
            self._idle.pop().stop()
