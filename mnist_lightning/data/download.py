"""Download a file within limits of time, speed and size."""

import queue
import threading
import time
from pathlib import Path
from typing import NamedTuple

from mnist_lightning.errors import UserError

# Slower than a modem of the year 2000 for so long: another mirror, or another day, is faster.
MIN_BYTES_PER_SECOND = 10_000
SPEED_SECONDS = 15.0
PIECE = 1 << 16


class DownloadError(UserError):
    """A download failed or exceeded a limit."""


class Limits(NamedTuple):
    """What a download may take: bytes, seconds in all, and seconds without any data."""

    size: int
    seconds: float
    silence: float = 20.0


def download(url: str, path: Path, limits: Limits) -> None:
    """Download a file to `path`, where there is none.

    Raises:
        DownloadError: it failed, or exceeded a limit.
    """
    from tqdm import tqdm

    # In a thread: a server that sends its header byte by byte keeps `requests` busy forever.
    pieces: queue.Queue[bytes | Exception | None] = queue.Queue(maxsize=16)
    given_up = threading.Event()
    arguments = (url, limits.silence, pieces, given_up)
    threading.Thread(target=_receive, args=arguments, daemon=True).start()
    try:
        bar = tqdm(desc=path.name, unit="B", unit_scale=True, disable=None)  # None: on a terminal
        with path.open("xb") as file, bar:
            speed = _SpeedLimit(limits)
            while (piece := speed.next_piece(pieces)) is not None:
                file.write(piece)
                bar.update(len(piece))
    finally:
        given_up.set()


class _SpeedLimit:
    """Takes pieces from a queue, and gives up when they are too late, too slow or too many."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.began = time.monotonic()
        self.size = 0
        self.window = (self.began, 0)  # when it began, and the size then

    def next_piece(self, pieces: "queue.Queue[bytes | Exception | None]") -> bytes | None:
        """Return a piece; None at the end."""
        while True:
            deadline = min(self.began + self.limits.seconds, self.window[0] + SPEED_SECONDS)
            try:
                piece = pieces.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                piece = b""
            if isinstance(piece, Exception):
                raise piece
            if piece is None:
                return None
            self.size += len(piece)
            self._check(time.monotonic())
            if piece:
                return piece

    def _check(self, now: float) -> None:
        if self.size > self.limits.size:
            raise DownloadError(f"more than {self.limits.size:,} bytes")
        if now - self.began > self.limits.seconds:
            raise DownloadError(f"not complete after {self.limits.seconds:.0f} s")
        since, size = self.window
        if now - since >= SPEED_SECONDS:
            if self.size - size < MIN_BYTES_PER_SECOND * SPEED_SECONDS:
                raise DownloadError(
                    f"slower than {MIN_BYTES_PER_SECOND // 1000} kB/s for {SPEED_SECONDS:.0f} s"
                )
            self.window = (now, self.size)


def _receive(
    url: str,
    silence: float,
    pieces: "queue.Queue[bytes | Exception | None]",
    given_up: threading.Event,
) -> None:
    """Put a file's pieces into a queue, then None, or the error."""
    import requests

    def put(piece: bytes | Exception | None) -> None:
        while not given_up.is_set():
            try:
                pieces.put(piece, timeout=1)
                break
            except queue.Full:
                continue

    try:
        # "identity": a compressed answer could expand without limit.
        headers = {"Accept-Encoding": "identity"}
        with requests.get(url, stream=True, timeout=silence, headers=headers) as reply:
            reply.raise_for_status()
            # read1: what has come so far, not a whole piece, for which it may wait for hours.
            while not given_up.is_set():
                piece = reply.raw.read1(PIECE, decode_content=False)
                if not piece:
                    break
                put(piece)
            missing = reply.raw.length_remaining
        put(DownloadError(f"{missing:,} bytes are missing") if missing else None)
    except requests.RequestException as error:
        put(DownloadError(reason_of(error)))
    except Exception as error:  # urllib3's own, of a body that breaks off
        put(DownloadError(f"no connection: {type(error).__name__}"))


def reason_of(error: Exception) -> str:
    """Say in a few words why a request failed."""
    import requests

    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    return str(error)
