"""Images are read by several processes, in order and in bounded memory."""

import contextlib
import io
import threading
from collections.abc import Iterator

import psutil
import pytest

from mnist_lightning.preprocessing.extraction_pool import IN_PROGRESS, MIN_IMAGES, ExtractionPool
from mnist_lightning.preprocessing.extraction_process import DigitExtractor, UnreadableError
from mnist_lightning.preprocessing.mnist_format import png
from tests.images import draw_seven


def draw(index: int) -> bytes:
    content = io.BytesIO()
    draw_seven(size=60 + index).save(content, "PNG")
    return content.getvalue()


def read(extractor: DigitExtractor, content: bytes) -> bytes | str:
    try:
        return png(extractor.find_digits(content, False).digits[0].ink)
    except UnreadableError as error:
        return str(error)


def test_the_results_are_in_order_and_those_of_one_process() -> None:
    contents = [draw(index) for index in range(40)]
    contents[30] = b"not an image"
    with ExtractionPool(1) as pool:
        expected = list(pool.map(read, contents))
    with ExtractionPool(3) as pool:
        assert list(pool.map(read, contents)) == expected
        assert len(pool._extractors) > 1


def test_few_images_need_one_process() -> None:
    with ExtractionPool(3) as pool:
        list(pool.map(read, [draw(1)] * MIN_IMAGES))
        assert len(pool._extractors) == 1


def test_images_are_requested_shortly_before_they_are_needed() -> None:
    requested = 0

    def contents() -> Iterator[bytes]:
        nonlocal requested
        while True:
            requested += 1
            yield draw(1)

    with ExtractionPool(2) as pool:
        for received, _ in enumerate(pool.map(read, contents()), 1):
            assert requested <= received + IN_PROGRESS * 2
            if received == 40:
                break


@pytest.mark.parametrize("size", [1, 2])
def test_the_processes_end_with_the_pool(size: int) -> None:
    before = {child.pid for child in psutil.Process().children()}
    with ExtractionPool(size) as pool:
        iterator = pool.map(read, [draw(1)] * 100)
        for _ in range(30):
            next(iterator)
    after = {child.pid for child in psutil.Process().children()}
    assert after <= before


def test_a_pool_that_is_left_does_not_wait_for_slow_images() -> None:
    errors: list[str | bytes] = []
    waiting = threading.Event()

    def read_slowly(extractor: DigitExtractor, index: int) -> int:
        if index == MIN_IMAGES:
            psutil.Process(extractor._process._process.pid).suspend()
            waiting.set()
            errors.append(read(extractor, draw(1)))
        return index

    def read_all(pool: ExtractionPool) -> None:
        with contextlib.suppress(Exception):
            list(pool.map(read_slowly, range(MIN_IMAGES + 1)))

    with ExtractionPool(2) as pool:
        threading.Thread(target=read_all, args=[pool], daemon=True).start()
        assert waiting.wait(60)
    assert errors == ["the image is damaged: the decoder crashed"]  # killed, not timed out


def test_an_error_of_the_function_is_raised_in_the_caller() -> None:
    def fail(extractor: DigitExtractor, index: int) -> int:
        if index == 30:
            raise KeyError(index)
        return index

    with ExtractionPool(2) as pool, pytest.raises(KeyError):
        list(pool.map(fail, range(100)))
