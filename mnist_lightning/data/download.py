"""Download a file within limits of time, speed and size."""

import queue
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mnist_lightning.errors import UserError

# A download slower than this for SPEED_SECONDS is aborted, so that another mirror can be tried.
MIN_BYTES_PER_SECOND = 10_000
SPEED_SECONDS = 15.0
READ_SECONDS = 20.0  # without any data
CHUNK_BYTES = 1 << 16


class DownloadError(UserError):
    """A download failed or exceeded a limit."""


class Limits(NamedTuple):
    """Limits of a download: bytes, and total seconds."""

    size: int
    seconds: float


def download_any(
    urls: Sequence[str], path: Path, limits: Limits, accept: Callable[[Path], object]
) -> None:
    """Download a file from the first URL that returns the correct content.

    Args:
        urls: of the same file, in order of preference.
        path: names the temporary file, beside it.
        limits: of each attempt.
        accept: moves or converts the temporary file; raises a UserError if its content is wrong.

    Raises:
        DownloadError: no URL returned the correct content.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}{path.suffix}")
    reasons = []
    for url in urls:
        try:
            download(url, part, limits)
            accept(part)
            return
        except UserError as error:
            reasons.append(f"{url} ({error})")
        finally:
            part.unlink(missing_ok=True)
    raise DownloadError(f"tried {'; '.join(reasons)}")


def download(url: str, path: Path, limits: Limits) -> None:
    """Download a file to `path`, which must not exist.

    Raises:
        DownloadError: the download failed or exceeded a limit.
    """
    from tqdm import tqdm

    # In a thread: a server that sends its header byte by byte can block `requests` forever.
    chunks: queue.Queue[bytes | Exception | None] = queue.Queue(maxsize=16)
    canceled = threading.Event()
    threading.Thread(target=_receive, args=(url, chunks, canceled), daemon=True).start()
    bar = tqdm(desc=path.name, unit="B", unit_scale=True, disable=None)  # None: on a terminal
    start = window_start = time.monotonic()
    size = window_size = 0
    try:
        with path.open("xb") as file, bar:
            while True:
                deadline = min(start + limits.seconds, window_start + SPEED_SECONDS)
                chunk = _next_chunk(chunks, deadline)
                if chunk is None:
                    return
                now, size = time.monotonic(), size + len(chunk)
                if size > limits.size:
                    raise DownloadError(f"more than {limits.size:,} bytes")
                if now - start > limits.seconds:
                    raise DownloadError(f"not complete after {limits.seconds:.0f} s")
                if now - window_start >= SPEED_SECONDS:
                    if size - window_size < MIN_BYTES_PER_SECOND * SPEED_SECONDS:
                        minimum = f"{MIN_BYTES_PER_SECOND // 1000} kB/s"
                        raise DownloadError(f"slower than {minimum} for {SPEED_SECONDS:.0f} s")
                    window_start, window_size = now, size
                file.write(chunk)
                bar.update(len(chunk))
    finally:
        canceled.set()


def _next_chunk(chunks: "queue.Queue[bytes | Exception | None]", deadline: float) -> bytes | None:
    """Return the next chunk, nothing at the deadline, or None at the end; raise an error."""
    try:
        chunk = chunks.get(timeout=max(0.01, deadline - time.monotonic()))
    except queue.Empty:
        return b""
    if isinstance(chunk, Exception):
        raise chunk
    return chunk


def _receive(
    url: str, chunks: "queue.Queue[bytes | Exception | None]", canceled: threading.Event
) -> None:
    """Put the chunks of a file into a queue, then None or the error."""
    import requests

    def put(chunk: bytes | Exception | None) -> None:
        while not canceled.is_set():
            with suppress(queue.Full):
                chunks.put(chunk, timeout=1)
                return

    try:
        # "identity": a compressed response could expand without limit.
        headers = {"Accept-Encoding": "identity"}
        with requests.get(url, stream=True, timeout=READ_SECONDS, headers=headers) as response:
            response.raise_for_status()
            # read1 returns the available data; read could wait hours for a whole chunk.
            while not canceled.is_set() and (chunk := response.raw.read1(CHUNK_BYTES)):
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
