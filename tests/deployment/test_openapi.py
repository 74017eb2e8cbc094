"""The server follows HTTP, and its description of itself."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.images import draw_seven, encode

ROOT = Path(__file__).parent.parent.parent
READABLE = (
    *("/", "/docs", "/watch", "/page.css", "/openapi.json"),
    *("/api/health", "/api/runs", "/api/watch"),
)
UPLOADS = ("/api/predict", "/api/corrections")


@pytest.mark.parametrize("path", [*READABLE, *UPLOADS])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"])
def test_a_refused_method_comes_with_the_allowed_ones(
    client: httpx.Client, path: str, method: str
) -> None:
    if method == ("POST" if path in UPLOADS else "GET"):
        return
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["type"]) == (405, "method_not_allowed")
    allowed = "POST, OPTIONS" if path in UPLOADS else "GET, HEAD, OPTIONS"
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", [*READABLE, *UPLOADS])
def test_options_returns_the_allowed_methods(client: httpx.Client, path: str) -> None:
    answer = client.options(path)
    assert (answer.status_code, answer.content) == (204, b"")
    allowed = "POST, OPTIONS" if path in UPLOADS else "GET, HEAD, OPTIONS"
    assert answer.headers["allow"] == allowed
    assert client.options("/nothing").status_code == 404
    foreign = client.options(path, headers={"origin": "https://elsewhere.example"})
    assert foreign.status_code == 403


@pytest.mark.parametrize("path", READABLE)
def test_head_returns_the_header_of_get(client: httpx.Client, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length", "content-security-policy"):
        assert head.headers[name] == get.headers[name]


def test_head_of_an_upload_or_of_nothing_is_refused(client: httpx.Client) -> None:
    refused, missing = client.head("/api/predict"), client.head("/nothing")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST, OPTIONS")
    assert (missing.status_code, missing.content) == (404, b"")


def test_errors_are_documented_as_they_are(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    sent = encode(draw_seven())
    for path, query, body, status in (
        ("/api/predict", "?run=version_7", sent, 404),
        ("/api/predict", "?multiple=perhaps", sent, 422),
        ("/api/predict", "", b"", 422),
        ("/api/predict", "", bytes(25_000_001), 413),
        ("/api/corrections", "?label=12", sent, 422),
        ("/api/corrections", "", sent, 422),
    ):
        answer = client.post(path + query, content=body)
        assert answer.status_code == status
        response = described["paths"][path]["post"]["responses"][str(status)]
        schema = response["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}
        assert set(answer.json()) == {"error"}
        assert set(answer.json()["error"]) == {"type", "message"}
    assert "HTTPValidationError" not in described["components"]["schemas"]  # FastAPI's own


def test_both_forms_of_an_upload_are_documented(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    for path in UPLOADS:
        content = described["paths"][path]["post"]["requestBody"]["content"]
        assert set(content) == {"image/*", "multipart/form-data"}
        assert content["multipart/form-data"]["schema"]["required"] == ["file"]


def run_schemathesis(address: str, folder: Path, *options: str, hooks: str = "") -> str:
    """Test a server with Schemathesis; return what it prints if it finds a failure."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"]
    command += ["--checks", "all", "--seed", "1", "--max-examples", "50", "--no-color", *options]
    command += ["--generation-database", "none", "--continue-on-failure"]
    # A machine with other work may be slow.
    command += ["--suppress-health-check", "too_slow", "--request-timeout", "60"]
    command += ["--max-response-time", "60"]
    paths = {"PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": hooks}
    done = subprocess.run(
        command, cwd=folder, env=os.environ | paths, capture_output=True, text=True, timeout=300
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.slow
def test_images_of_digits_are_accepted_as_described(
    pretrained_address: str, tmp_path: Path
) -> None:
    hooks = str(Path(__file__).with_name("schemathesis_hooks.py"))
    printed = run_schemathesis(pretrained_address, tmp_path, hooks=hooks)
    assert printed == "", printed


@pytest.mark.slow
def test_random_requests_are_answered_as_described(pretrained_address: str, tmp_path: Path) -> None:
    # A schema cannot state that the bytes must be an image of a digit: random ones are refused.
    excluded = ("--exclude-checks", "positive_data_acceptance")
    printed = run_schemathesis(pretrained_address, tmp_path, *excluded)
    assert printed == "", printed
