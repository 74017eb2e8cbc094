"""Find the digits in many image files on all cores, in order and in bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Self, TypeVar

from mnist_lightning import posix
from mnist_lightning.preprocessing.extraction_process import DigitExtractor
from mnist_lightning.preprocessing.progress import show_progress

T = TypeVar("T")
R = TypeVar("R")

# Starting a process takes the time of this many images.
MIN_IMAGES = 16
IN_PROGRESS = 4  # images per process, so that a slow image does not stop the others


class ExtractionPool:
    """A `DigitExtractor` for each core; all but the first start when there are many images.

    Args:
        size: the number of processes; None: one for each core that this process may use.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = size or posix.cpu_count()
        self._extractors = [DigitExtractor()]  # its imports run while the caller does other things
        self._idle = self._extractors.copy()
        self._threads = ThreadPoolExecutor(self.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for extractor in self._extractors:
            extractor.kill()
        self._threads.shutdown()
        for extractor in self._extractors:
            extractor.stop()

    def map(
        self,
        function: Callable[[DigitExtractor, T], R],
        items: Iterable[T],
        title: str = "",
        total: int = 0,
        done: int = 0,
    ) -> Iterator[R]:
        """Yield `function(extractor, item)` for each item, in order; show the progress.

        Args:
            function: called in several threads.
            items: requested one by one, shortly before they are needed.
            title: what the progress is of.
            total: the number of images; 0: show no progress.
            done: how many of them are not among `items`, because they were read before.
        """
        with show_progress(title, total, "images", done) as advance:
            for result in self._map(function, items):
                yield result
                advance()

    def _map(self, function: Callable[[DigitExtractor, T], R], items: Iterable[T]) -> Iterator[R]:
        remaining = iter(items)
        for item in islice(remaining, MIN_IMAGES if self.size > 1 else None):
            yield self._call(function, item)
        pending: deque[Future[R]] = deque()
        for item in remaining:
            pending.append(self._threads.submit(self._call, function, item))
            if len(pending) >= IN_PROGRESS * self.size:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def _call(self, function: Callable[[DigitExtractor, T], R], item: T) -> R:
        try:
            extractor = self._idle.pop()
        except IndexError:
            extractor = DigitExtractor()
            self._extractors.append(extractor)
        try:
            return function(extractor, item)
        finally:
            self._idle.append(extractor)
