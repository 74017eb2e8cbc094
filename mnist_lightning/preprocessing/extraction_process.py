"""Find the digits in an image file in a process of its own, which can be stopped.

No rule about files bounds the time of every decoder, and a thread cannot be stopped. A process can:
it is killed when an image takes too long, its memory is limited, and a crash of a decoder ends it
alone. It starts in half a second and serves any number of images; an exchange costs 0.1 ms.

Messages over the pipes: a length (8 bytes), then so many bytes. A request is one byte (`multiple`:
0, 1, or 2 for "if obvious") and the file's content; an answer is JSON, with the pixels in
hexadecimal. No pickle: a decoder may have been taken over.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from io import BytesIO
from typing import Any, NamedTuple, Self

import numpy as np

from mnist_lightning import posix
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.mnist_format import SIZE, DigitImage, TooLargeError

MAX_SECONDS = 20.0  # the slowest valid image, of 120 megapixels, takes 7 s on one core
MAX_MEMORY = 2_500_000_000  # bytes of address space; the same image takes 1.9 GB
MAX_ANSWER = 1_000_000  # bytes; 500 digits of a form are 850,000

_MULTIPLE = (False, True, None)
# -I: import modules from the parent's path, not from the working directory.
_COMMAND = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
_COMMAND += "from mnist_lightning.preprocessing.extraction_process import serve; serve()"


class ExtractedDigits(NamedTuple):
    """The digits of an image in reading order, and the size of the upright image."""

    digits: list[DigitImage]
    width: int
    height: int


class UnreadableError(ValueError):
    """The file is not an image, is damaged, or costs too much to decode."""


class ExtractionFailedError(UnreadableError):
    """The process crashed, or had not enough time: another attempt may succeed."""


class NoDigitError(ValueError):
    """The image contains no digit."""


class ExtractionProcess:
    """A child process that decodes one image at a time."""

    def __init__(self) -> None:
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _COMMAND, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libtiff's warnings quote the file
            bufsize=0,
            env=os.environ | one_thread,
        )
        self._deadline = 0.0
        self._is_ready = False

    @property
    def alive(self) -> bool:
        """Whether the process can accept an image."""
        return self._process.poll() is None

    def send(self, content: bytes, multiple: bool | None) -> None:
        """Send an image file; `answer` returns the result."""
        self._deadline = time.monotonic() + MAX_SECONDS
        if not self._is_ready:  # the time for its imports is not that of the image
            with suppress(EOFError):
                self._receive(8)
            self._is_ready = True
            self._deadline = time.monotonic() + MAX_SECONDS
        assert self._process.stdin is not None
        request = struct.pack(">QB", len(content) + 1, _MULTIPLE.index(multiple))
        with suppress(BrokenPipeError):  # the process has died; `answer` reports it
            for part in (request, content):
                unsent = memoryview(part)
                while unsent:
                    unsent = unsent[self._process.stdin.write(unsent) :]

    def answer(self, seconds: float = MAX_SECONDS) -> ExtractedDigits | None:
        """Wait for the answer; return None if it takes longer than `seconds`.

        Raises:
            TooLargeError, UnreadableError: the image cannot be read.
            NoDigitError: it contains no digit.
        """
        if not self._is_readable(min(self._deadline, time.monotonic() + seconds)):
            if time.monotonic() < self._deadline:
                return None
            self.stop()
            raise ExtractionFailedError(
                f"Refused: the image takes more than {MAX_SECONDS:.0f} s to decode"
            )
        try:
            answer = self._receive(*struct.unpack(">Q", self._receive(8)))
        except EOFError:
            self.stop()
            raise ExtractionFailedError("the image is damaged: the decoder crashed") from None
        return _unpack(answer)

    def kill(self) -> None:
        """Kill the process; a thread that waits for its answer gets an error."""
        self._process.kill()

    def stop(self) -> None:
        """Kill the process, and release its pipes."""
        with self._process:  # closes the pipes and waits
            self._process.kill()

    def _is_readable(self, deadline: float) -> bool:
        assert self._process.stdout is not None
        return posix.is_readable(self._process.stdout, deadline)

    def _receive(self, count: int) -> bytes:
        assert self._process.stdout is not None
        content = bytearray()
        while len(content) < count <= MAX_ANSWER and self._is_readable(self._deadline):
            part = self._process.stdout.read(count - len(content))
            if not part:
                break
            content += part
        if len(content) < count:
            raise EOFError
        return bytes(content)


class DigitExtractor:
    """Finds the digits in image files, in a process that is replaced after a failure."""

    def __init__(self) -> None:
        self._process = ExtractionProcess()
        self._is_killed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def kill(self) -> None:
        """Kill the process for good, also while another thread waits for its answer."""
        self._is_killed = True
        self._process.kill()

    def stop(self) -> None:
        """Kill the process, and release its pipes."""
        self._process.stop()

    def find_digits(self, content: bytes, multiple: bool | None) -> ExtractedDigits:
        """Find the digits in the content of an image file; see `mnist_format.find_digits`.

        Raises:
            TooLargeError, UnreadableError, NoDigitError: see `ExtractionProcess.answer`.
        """
        if not (self._process.alive or self._is_killed):
            self._process = ExtractionProcess()
        self._process.send(content, multiple)
        result = self._process.answer()
        assert result is not None  # it waits for the whole time
        return result


def _unpack(answer: bytes) -> ExtractedDigits:
    facts = json.loads(answer)
    if "error" in facts:
        kinds = {kind.__name__: kind for kind in (TooLargeError, NoDigitError)}
        raise kinds.get(facts["error"], UnreadableError)(facts["message"])
    digits = []
    for pixels, dark, box, wide, cell in facts["digits"]:
        place = None if cell is None else tuple(cell)
        ink = np.frombuffer(bytes.fromhex(pixels), np.uint8).reshape(SIZE, SIZE)
        digits.append(DigitImage(ink, bool(dark), tuple(box), bool(wide), place))
    return ExtractedDigits(digits, facts["width"], facts["height"])


def serve() -> None:
    """Answer requests on standard input until it ends. It is the child's main function."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    posix.limit_memory(MAX_MEMORY)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # text that a library prints must not reach the answers
    import scipy.ndimage  # noqa: F401 - used for every image

    answers.write(bytes(8))  # ready
    answers.flush()
    while header := requests.read(8):
        # If the parent was killed, it cannot stop this process.
        posix.end_process_after(round(MAX_SECONDS) + 5)
        request = requests.read(*struct.unpack(">Q", header))
        answer = json.dumps(_read(memoryview(request)[1:], _MULTIPLE[request[0]])).encode()
        answers.write(struct.pack(">Q", len(answer)) + answer)
        answers.flush()
        posix.end_process_after(0)


def _read(content: memoryview, multiple: bool | None) -> dict[str, Any]:
    try:
        image = mnist_format.read(BytesIO(content))
    except ValueError as error:
        return {"error": type(error).__name__, "message": str(error)}
    try:
        digits = mnist_format.find_digits(image, multiple)
    except ValueError as error:
        return {"error": NoDigitError.__name__, "message": str(error)}
    except MemoryError:
        return {"error": TooLargeError.__name__, "message": "too large: it does not fit in memory"}
    except Exception as error:  # Pillow's conversions trust the decoded data
        message = f"the image is damaged: {type(error).__name__}"
        return {"error": UnreadableError.__name__, "message": message}
    described = [(digit.ink.tobytes().hex(), *digit[1:]) for digit in digits]
    return {"digits": described, "width": image.width, "height": image.height}
