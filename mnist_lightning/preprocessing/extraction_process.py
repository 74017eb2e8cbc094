"""Find the digits in an image file in a process of its own, which can be stopped.

No rule about files bounds the time of every decoder, and a thread cannot be stopped. A process can:
it is killed when an image takes too long, its memory is limited, and a crash of a decoder ends it
alone. It starts in 0.1 s and serves any number of images; an exchange costs 0.1 ms.

Messages over the pipes: a length (8 bytes), then so many bytes. A request is one byte (`multiple`:
0, 1, or 2 for "if obvious") and the file's content; an answer is a length (4 bytes), JSON of that
length, and the 784 bytes of each digit. No pickle: a decoder may have been taken over.
"""

import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from io import BytesIO
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.preprocessing.image_limits import RefusedError
from mnist_lightning.preprocessing.ink_extraction import upright
from mnist_lightning.preprocessing.mnist_format import SIZE, Digit, TooLargeError

MAX_SECONDS = 20.0  # the slowest valid image, of 120 megapixels, takes 7 s on one core
MAX_MEMORY = 2_500_000_000  # bytes of address space; the same image takes 1.9 GB
MAX_ANSWER = 1_000_000  # bytes; 200 digits are 180,000

_MULTIPLE = (False, True, None)
# -I: modules are imported from the parent's path, not from the working directory.
_COMMAND = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
_COMMAND += "from mnist_lightning.preprocessing.extraction_process import serve; serve()"


class Found(NamedTuple):
    """What an image holds: its digits in reading order, and the size of the upright image."""

    digits: list[Digit]
    width: int
    height: int


class UnreadableError(ValueError):
    """The file is not an image, is damaged, or costs too much to decode."""


class NoDigitError(ValueError):
    """The image holds no digit."""


class ReadingProcess:
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
        self._ends = 0.0

    @property
    def alive(self) -> bool:
        """Whether it can take an image."""
        return self._process.poll() is None

    def send(self, content: bytes, multiple: bool | None) -> None:
        """Send an image file; `answer` returns what was found in it."""
        self._ends = time.monotonic() + MAX_SECONDS
        assert self._process.stdin is not None
        request = struct.pack(">QB", len(content) + 1, _MULTIPLE.index(multiple))
        with suppress(BrokenPipeError):  # it has died; `answer` says so
            _write(self._process.stdin, request, content)

    def answer(self, seconds: float = MAX_SECONDS) -> Found | None:
        """Wait for the answer; return None if it takes longer than `seconds`.

        Raises:
            TooLargeError, UnreadableError, NoDigitError: as the reading of an image.
        """
        assert self._process.stdout is not None
        if not self._is_readable(min(self._ends, time.monotonic() + seconds)):
            if time.monotonic() < self._ends:
                return None
            self.stop()
            raise UnreadableError(f"Refused: the image takes more than {MAX_SECONDS:.0f} s to read")
        try:
            answer = self._receive(*struct.unpack(">Q", self._receive(8)))
        except EOFError:
            self.stop()
            raise UnreadableError("a damaged picture: the decoder crashed at it") from None
        return _unpack(answer)

    def stop(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _is_readable(self, deadline: float) -> bool:
        # poll, not select: a server may have more than 1,024 open files.
        poller = select.poll()
        poller.register(self._process.stdout, select.POLLIN)  # type: ignore[arg-type]
        return bool(poller.poll(1000 * max(0.0, deadline - time.monotonic())))

    def _receive(self, count: int) -> bytes:
        assert self._process.stdout is not None
        content = bytearray()
        while len(content) < count <= MAX_ANSWER and self._is_readable(self._ends):
            part = self._process.stdout.read(count - len(content))
            if not part:
                break
            content += part
        if len(content) < count:
            raise EOFError
        return bytes(content)


def find_digits(process: ReadingProcess, content: bytes, multiple: bool | None) -> Found:
    """Find the digits in an image file.

    Raises:
        TooLargeError, UnreadableError, NoDigitError: there is none, or it cannot be read.
    """
    process.send(content, multiple)
    found = process.answer()
    assert found is not None  # after MAX_SECONDS it raises
    return found


def _write(pipe: Any, *parts: bytes) -> None:
    for part in parts:
        view = memoryview(part)
        while view:
            view = view[pipe.write(view) :]


def _unpack(answer: bytes) -> Found:
    (length,) = struct.unpack_from(">I", answer)
    facts = json.loads(answer[4 : 4 + length])
    if "error" in facts:
        kinds: dict[str, type[ValueError]] = {
            "too_large": TooLargeError,
            "no_digit": NoDigitError,
        }
        raise kinds.get(facts["error"], UnreadableError)(facts["message"])
    ink = np.frombuffer(answer, np.uint8, offset=4 + length).reshape(-1, SIZE, SIZE)
    digits = [
        Digit(of, bool(each["dark"]), tuple(each["box"]), bool(each["wide"]))
        for of, each in zip(ink, facts["digits"], strict=True)
    ]
    return Found(digits, facts["width"], facts["height"])


def serve() -> None:
    """Answer requests on standard input until it ends: the child's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    _limit_memory()
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    while header := requests.read(8):
        # A parent that was killed cannot stop its child.
        signal.alarm(round(MAX_SECONDS) + 5)
        request = requests.read(*struct.unpack(">Q", header))
        _answer(request, answers)
        signal.alarm(0)


def _answer(request: bytes, answers: BinaryIO) -> None:
    facts, ink = _read(memoryview(request)[1:], _MULTIPLE[request[0]])
    encoded = json.dumps(facts).encode()
    answers.write(struct.pack(">QI", 4 + len(encoded) + len(ink), len(encoded)) + encoded + ink)
    answers.flush()


def _read(content: memoryview, multiple: bool | None) -> tuple[dict[str, Any], bytes]:
    try:
        picture = mnist_format.read(BytesIO(content))
    except TooLargeError as error:
        return {"error": "too_large", "message": str(error)}, b""
    except (RefusedError, ValueError) as error:
        return {"error": "unreadable", "message": str(error)}, b""
    try:
        turned = upright(picture)
        digits = mnist_format.find_digits(turned, multiple)
    except ValueError as error:
        return {"error": "no_digit", "message": str(error)}, b""
    except MemoryError:
        return {"error": "too_large", "message": "too large: it does not fit in memory"}, b""
    except Exception as error:  # of Pillow's conversions, which trust what was decoded
        message = f"a damaged picture: {type(error).__name__}"
        return {"error": "unreadable", "message": message}, b""
    described = [
        {"dark": each.dark, "box": [int(side) for side in each.box], "wide": bool(each.wide)}
        for each in digits
    ]
    facts = {"digits": described, "width": turned.width, "height": turned.height}
    return facts, b"".join(each.ink.tobytes() for each in digits)


def _limit_memory() -> None:
    try:
        import resource
    except ModuleNotFoundError:  # not on this system
        return
    with suppress(ValueError, OSError):  # a lower limit holds already, or none can be set
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
