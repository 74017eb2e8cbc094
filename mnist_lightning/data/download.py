"""Download a file within limits of time, speed and size."""

import queue
import threading
import time
from pathlib import Path
from typing import NamedTuple

from mnist_lightning.errors import UserError

# A download slower than this for SPEED_SECONDS is aborted, so that another mirror can be tried.
MIN_BYTES_PER_SECOND = 10_000
SPEED_SECONDS = 15.0
CHUNK_BYTES = 1 << 16


class DownloadError(UserError):
    """A download failed or exceeded a limit."""


class Limits(NamedTuple):
    """Limits of a download: bytes, total seconds, and seconds without any data."""

    size: int
    seconds: float
    read_seconds: float = 20.0


def download(url: str, path: Path, limits: Limits) -> None:
    """Download a file to `path`, which must not exist.

    Raises:
        DownloadError: the download failed or exceeded a limit.
    """
    from tqdm import tqdm

    # In a thread: a server that sends its header byte by byte can block `requests` forever.
    chunks: queue.Queue[bytes | Exception | None] = queue.Queue(maxsize=16)
    canceled = threading.Event()
    arguments = (url, limits.read_seconds, chunks, canceled)
    threading.Thread(target=_receive, args=arguments, daemon=True).start()
    try:
        bar = tqdm(desc=path.name, unit="B", unit_scale=True, disable=None)  # None: on a terminal
        with path.open("xb") as file, bar:
            speed = _SpeedLimit(limits)
            while (chunk := speed.next_chunk(chunks)) is not None:
                file.write(chunk)
                bar.update(len(chunk))
    finally:
        canceled.set()


class _SpeedLimit:
    """Takes chunks from a queue; raises an error when they are late, slow or too large."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.start = time.monotonic()
        self.size = 0
        self.window = (self.start, 0)  # its start time, and the size at that time

    def next_chunk(self, chunks: "queue.Queue[bytes | Exception | None]") -> bytes | None:
        """Return the next chunk; None at the end."""
        while True:
            deadline = min(self.start + self.limits.seconds, self.window[0] + SPEED_SECONDS)
            try:
                chunk = chunks.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                chunk = b""
            if isinstance(chunk, Exception):
                raise chunk
            if chunk is None:
                return None
            self.size += len(chunk)
            self._check(time.monotonic())
            if chunk:
                return chunk

    def _check(self, now: float) -> None:
        if self.size > self.limits.size:
            raise DownloadError(f"more than {self.limits.size:,} bytes")
        if now - self.start > self.limits.seconds:
            raise DownloadError(f"not complete after {self.limits.seconds:.0f} s")
        start, size = self.window
        if now - start >= SPEED_SECONDS:
            if self.size - size < MIN_BYTES_PER_SECOND * SPEED_SECONDS:
                raise DownloadError(
                    f"slower than {MIN_BYTES_PER_SECOND // 1000} kB/s for {SPEED_SECONDS:.0f} s"
                )
            self.window = (now, self.size)


def _receive(
    url: str,
    read_seconds: float,
    chunks: "queue.Queue[bytes | Exception | None]",
    canceled: threading.Event,
) -> None:
    """Put the chunks of a file into a queue, then None or the error."""
    import requests

    def put(chunk: bytes | Exception | None) -> None:
        while not canceled.is_set():
            try:
                chunks.put(chunk, timeout=1)
                break
            except queue.Full:
                continue

    try:
        # "identity": a compressed response could expand without limit.
        headers = {"Accept-Encoding": "identity"}
        with requests.get(url, stream=True, timeout=read_seconds, headers=headers) as response:
            response.raise_for_status()
            # read1 returns the available data; read could wait hours for a whole chunk.
            while not canceled.is_set():
                chunk = response.raw.read1(CHUNK_BYTES, decode_content=False)
                if not chunk:
                    break
                put(chunk)
            missing = response.raw.length_remaining
        put(DownloadError(f"{missing:,} bytes are missing") if missing else None)
    except requests.RequestException as error:
        put(DownloadError(describe_error(error)))
    except Exception as error:  # urllib3's errors for an incomplete body
        put(DownloadError(f"no connection: {type(error).__name__}"))


def describe_error(error: Exception) -> str:
    """Return in a few words why a request failed."""
    import requests

    if isinstance(error, requests.Timeout):
        return "no response in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    return str(error)
