"""Images in forms: read as images that are sent directly, with the same limits."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mnist_lightning.deployment.problems import ProblemError
from mnist_lightning.deployment.uploads import (
    CHUNK,
    FORM_SECONDS,
    IDLE_SECONDS,
    MAX_BYTES,
    extract_file,
)
from tests.image_bombs import scan_bomb
from tests.images import draw_seven, encode

HEAD = b'Content-Disposition: form-data; name="file"; filename="x.png"\r\n'
FORM = {"content-type": "multipart/form-data; boundary=b"}


def form(content: bytes, head: bytes = HEAD, boundary: bytes = b"b") -> bytes:
    """Return a form with one part."""
    return b"--%s\r\n%s\r\n%s\r\n--%s--\r\n" % (boundary, head, content, boundary)


@pytest.mark.parametrize(
    "filename", ["x.png", "", "../../etc/passwd", "C:\\x\\y.png", 'a"b.png', "七.png", "x" * 3000]
)
def test_an_image_in_a_form_is_read_whatever_its_name(client: httpx.Client, filename: str) -> None:
    sent = encode(draw_seven())
    expected = client.post("/api/predict", content=sent).raise_for_status().json()
    answer = client.post("/api/predict", files={"file": (filename, sent)})
    answer = answer.raise_for_status().json()
    assert answer["digits"] == expected["digits"]


def test_an_option_is_part_of_the_address(client: httpx.Client) -> None:
    files = {"file": encode(draw_seven())}
    answer = client.post("/api/predict", files=files, params={"run": "version_7"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "unknown_run")
    answer = client.post("/api/predict", files=files, data={"run": "version_7"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, "invalid_form")
    assert "options belong in the address" in answer.json()["error"]["message"]


def test_a_correction_in_a_form_is_saved(client: httpx.Client) -> None:
    files = {"file": ("../../x.png", encode(draw_seven()))}
    answer = client.post("/api/corrections", files=files, params={"label": 7})
    assert answer.status_code == 201
    direct = client.post("/api/corrections", content=files["file"][1], params={"label": 7})
    assert direct.json() == answer.json()  # the name of the file on the server


@pytest.mark.parametrize(
    ("sent", "content_type", "problem"),
    [
        (form(b"x"), "multipart/form-data", "no boundary"),
        (form(b"x"), "multipart/form-data; boundary=", "no boundary"),
        (form(b"x"), "multipart/form-data; boundary=other", "RFC 7578"),
        (form(b"x"), f"multipart/form-data; boundary={'b' * 1000}", "RFC 7578"),
        (b"", "multipart/form-data; boundary=b", "no end"),
        (b"--b--\r\n", "multipart/form-data; boundary=b", "no end"),
        (form(b"x")[:-8], "multipart/form-data; boundary=b", "no end"),
        (form(b"x", b""), "multipart/form-data; boundary=b", "another name or none"),
        (form(b"x", b"a: b\r\n" * 100), "multipart/form-data; boundary=b", "RFC 7578"),
        (form(b"x", b"a:" + b"b" * 10**6), "multipart/form-data; boundary=b", "RFC 7578"),
        (form(b"x", HEAD.replace(b"file", b"image")), FORM["content-type"], "another name"),
        (b"--b\r\n" * 10**6, "multipart/form-data; boundary=b", "RFC 7578"),
        (
            b"--b\r\n%s\r\nx\r\n" % HEAD * 10**4,
            "MULTIPART/form-data; boundary=b",
            "more than one part",
        ),
    ],
)
def test_an_invalid_form_is_refused_with_a_reason(
    client: httpx.Client, sent: bytes, content_type: str, problem: str
) -> None:
    answer = client.post("/api/predict", content=sent, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, "invalid_form")
    assert problem in answer.json()["error"]["message"]
    assert "curl -F file=@seven.png" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "status", "kind"),
    [
        (b"", 422, "no_picture"),
        (b"seven", 422, "unreadable"),
        (encode(Image.new("L", (50, 50), 255)), 422, "no_digit"),
        (encode(Image.new("1", (13_000, 13_000))), 413, "too_large"),
        (bytes(MAX_BYTES), 413, "too_large"),
    ],
)
def test_the_limits_of_images_apply_to_forms(
    client: httpx.Client, content: bytes, status: int, kind: str
) -> None:
    answer = client.post("/api/predict", content=form(content), headers=FORM)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)


@given(content=st.binary(max_size=300), boundary=st.from_regex(rb"[\w'()+,./:=?-]{1,70}\Z"))
def test_a_file_is_extracted_unchanged(content: bytes, boundary: bytes) -> None:
    if b"\r\n--" + boundary not in b"\r\n" + content:
        assert extract_file(form(content, boundary=boundary), boundary) == content


def test_a_file_is_extracted_where_chunks_end_within_the_boundary() -> None:
    for size in range(CHUNK - 120, CHUNK + 20):
        content = b"\r\n--" * (size // 4) + b"\r" * (size % 4)
        assert extract_file(form(content, boundary=b"boundary"), b"boundary") == content


PIECES = [
    b"--b",
    b"--b--",
    b"\r\n",
    b"\r",
    b"\n",
    HEAD,
    b":",
    b"-",
    b"\0",
    b"x",
    b'"',
    b"name=file",
]


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=12), boundary=st.sampled_from([b"b", b""]))
def test_any_body_is_a_form_or_refused(pieces: list[bytes], boundary: bytes) -> None:
    with suppress(ProblemError):
        assert isinstance(extract_file(b"".join(pieces), boundary), bytes)


def test_invalid_forms_do_not_fill_the_terminal() -> None:
    script = (
        "from mnist_lightning.deployment.uploads import InvalidFormError, extract_file\n"
        "try:\n    extract_file(b'x' * 100, b'b')\n"
        "except InvalidFormError:\n    print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("refused\n", "")


@pytest.mark.slow
def test_a_file_full_of_boundaries_does_not_delay_others(client: httpx.Client) -> None:
    crafted = form(b"\r\n--b-X" * (MAX_BYTES // 7 - 30))
    start = time.thread_time()
    with pytest.raises(ProblemError):
        extract_file(crafted, b"b")
    assert time.thread_time() - start < 2 * FORM_SECONDS

    def send() -> httpx.Response:
        return client.post("/api/predict", content=crafted, headers=FORM)

    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(send) for _ in range(4)]
        slowest = 0.0
        while not all(each.done() for each in sent):
            start = time.monotonic()
            assert client.get("/api/health").status_code == 200
            slowest = max(slowest, time.monotonic() - start)
    for each in sent:
        assert each.result().status_code == 422
        assert "too much like the boundary" in each.result().json()["error"]["message"]
    assert slowest < 10  # parsing them takes 14 s without the limit


@pytest.mark.slow
def test_a_form_that_stops_arriving_is_refused_in_time(pretrained_address: str) -> None:
    def stop() -> Iterator[bytes]:
        yield form(b"x" * 1000)[:500]
        time.sleep(IDLE_SECONDS + 2)
        yield b"x"

    start = time.monotonic()
    with suppress(httpx.TransportError):  # the server closes the connection after its answer
        answer = httpx.post(
            f"{pretrained_address}/api/predict", content=stop(), headers=FORM, timeout=60
        )
        assert (answer.status_code, answer.json()["error"]["type"]) == (408, "too_slow")
    assert time.monotonic() - start < IDLE_SECONDS + 8


@pytest.mark.slow
def test_an_expensive_image_in_a_form_is_refused(client: httpx.Client) -> None:
    answer = client.post("/api/predict", files={"file": scan_bomb()})
    assert answer.status_code == 422
    assert "2,000 scans; the limit is 37" in answer.json()["error"]["message"]
