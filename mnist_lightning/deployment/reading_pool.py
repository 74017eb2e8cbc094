"""The server's processes that read images, with queues and time limits."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

from mnist_lightning.deployment.problems import ClientGoneError
from mnist_lightning.preprocessing.extraction_process import ExtractedDigits, ExtractionProcess

QUICK_IMAGES = 2  # read at the same time
QUICK_SECONDS = 1.0  # a photo of 12 megapixels takes 0.3 s
# Read at the same time beyond QUICK_SECONDS; further ones are refused. With the quick ones they
# limit the memory: 4 processes of at most `extraction_process.MAX_MEMORY`.
SLOW_IMAGES = 2
MAX_WAITING = 64  # images in memory, waiting for their turn
CHECK_SECONDS = 0.5  # between two checks whether the client of a slow image is still connected


T = TypeVar("T")


class BusyError(Exception):
    """The server has reached a limit of its work."""


class ReadingPool:
    """A pool of processes that extract digits from images.

    An image has QUICK_SECONDS of one of QUICK_IMAGES turns. If it takes longer, it passes its turn
    to the next one and continues as one of SLOW_IMAGES, until `extraction_process.MAX_SECONDS`.
    """

    def __init__(self) -> None:
        self.turns = CapacityLimiter(QUICK_IMAGES)
        self._slow = CapacityLimiter(SLOW_IMAGES)
        self._threads = CapacityLimiter(QUICK_IMAGES + SLOW_IMAGES)
        self._idle: list[ExtractionProcess] = []

    async def find_digits(
        self, content: bytes, multiple: bool | None, client_is_gone: Callable[[], Awaitable[bool]]
    ) -> ExtractedDigits:
        """Find the digits in an image file.

        Raises:
            BusyError, ClientGoneError: see these classes.
            ValueError: see `ExtractionProcess.answer`.
        """
        if self.turns.statistics().tasks_waiting >= MAX_WAITING:
            raise BusyError(f"busy: {MAX_WAITING} images are waiting; try again later")
        async with self.turns:
            if await client_is_gone():
                raise ClientGoneError
            process, result = await self._in_thread(self._start, content, multiple)
        return result or await self._wait_slowly(process, client_is_gone)

    async def _wait_slowly(
        self, process: ExtractionProcess, client_is_gone: Callable[[], Awaitable[bool]]
    ) -> ExtractedDigits:
        if self._slow.available_tokens < 1:
            process.stop()
            raise BusyError(f"busy: {SLOW_IMAGES} large images are being read; try again in 20 s")
        async with self._slow:
            while True:
                result = await self._in_thread(self._answer, process, CHECK_SECONDS)
                if result is not None:
                    return result
                if await client_is_gone():
                    process.stop()
                    raise ClientGoneError

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        # The two other limiters already limit the threads.
        return await to_thread.run_sync(function, *arguments, limiter=self._threads)

    def _start(
        self, content: bytes, multiple: bool | None
    ) -> tuple[ExtractionProcess, ExtractedDigits | None]:
        process = self._acquire()
        process.send(content, multiple)
        return process, self._answer(process, QUICK_SECONDS)

    def _answer(self, process: ExtractionProcess, seconds: float) -> ExtractedDigits | None:
        """Wait for the answer; return the process to the pool if it has finished."""
        try:
            result = process.answer(seconds)
        except ValueError:
            self._release(process)
            raise
        except BaseException:
            process.stop()
            raise
        if result is not None:
            self._release(process)
        return result

    def _acquire(self) -> ExtractionProcess:
        while self._idle:
            process = self._idle.pop()
            if process.alive:
                return process
            process.stop()
        return ExtractionProcess()

    def _release(self, process: ExtractionProcess) -> None:
        if process.alive and len(self._idle) < QUICK_IMAGES:
            self._idle.append(process)
        else:
            process.stop()

    def stop(self) -> None:
        """Stop all idle processes."""
        while self._idle:
            self._idle.pop().stop()
