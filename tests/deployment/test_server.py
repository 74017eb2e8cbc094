"""The API of the server."""

import base64
import io
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from mnist_lightning import load
from mnist_lightning.deployment import uploads
from mnist_lightning.deployment.listener import open_socket
from mnist_lightning.preprocessing import mnist_format
from tests.conftest import Command
from tests.deployment.conftest import serving
from tests.images import draw_page, draw_seven, encode, seven_box


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[httpx.Client]:
    for address in serving(home, "0", "--collect", "kept"):
        with httpx.Client(base_url=address) as client:
            yield client


def test_an_image_is_read_as_in_python(client: httpx.Client, home: Path) -> None:
    for kind in ("png", "jpeg", "webp", "gif"):
        sent = encode(draw_seven(), kind)
        answer = client.post("/api/predict", content=sent).raise_for_status().json()
        recognizer = load(home / "lightning_logs" / "version_0")
        (expected,) = recognizer.read(mnist_format.read(io.BytesIO(sent)))
        (digit,) = answer["digits"]
        assert digit["label"] == expected.label
        assert digit["probabilities"] == pytest.approx(expected.probabilities.tolist(), abs=1e-5)
        assert digit["confidence"] == max(digit["probabilities"])
        assert digit["ink"] == "dark"
        assert np.abs(np.array(digit["box"]) - seven_box((0, 0))).max() <= 3
        png = base64.b64decode(digit["input"].removeprefix("data:image/png;base64,"))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), expected.digit.ink)
        assert (answer["run"], answer["width"], answer["height"]) == ("version_0", 200, 200)


def test_several_digits_are_read_in_order(client: httpx.Client) -> None:
    places = [(0, 20), (250, 0), (100, 260)]
    sent = encode(draw_page(places))
    for multiple, count in (("auto", 3), ("true", 3), ("false", 1)):
        answer = client.post("/api/predict", content=sent, params={"multiple": multiple}).json()
        assert len(answer["digits"]) == count
        if count == 3:
            for digit, place in zip(answer["digits"], places, strict=True):
                assert np.abs(np.array(digit["box"]) - seven_box(place)).max() <= 3


def test_other_runs_are_selected_only_by_name(client: httpx.Client, home: Path) -> None:
    known = client.get("/api/runs").json()
    assert [(run["name"], run["network"]) for run in known] == [
        ("pretrained", "ResidualCNN"),
        ("version_0", "ClassicCNN"),
        ("version_1", "DigitNet"),
    ]
    sent = encode(draw_seven())
    answer = client.post("/api/predict", content=sent, params={"run": "version_1"}).json()
    (expected,) = load(home / "lightning_logs" / "version_1").read(draw_seven())
    probabilities = answer["digits"][0]["probabilities"]
    assert probabilities == pytest.approx(expected.probabilities.tolist())
    path = str(home / "lightning_logs" / "version_1" / "checkpoints" / "best.ckpt")
    for name in ("version_7", "../lightning_logs/version_1", path, "last", "1"):
        answer = client.post("/api/predict", content=sent, params={"run": name})
        assert answer.status_code == 404
        assert answer.json()["error"]["type"] == "unknown_run"


@pytest.mark.parametrize(
    ("sent", "status", "kind"),
    [
        (b"", 422, "no_picture"),
        (b"seven", 422, "unreadable"),
        (encode(draw_seven())[:300], 422, "unreadable"),
        (encode(Image.new("L", (50, 50), 255)), 422, "no_digit"),
        (encode(Image.new("1", (13_000, 13_000))), 413, "too_large"),
        (bytes(uploads.MAX_BYTES + 1), 413, "too_large"),
        (b"GIF89a" + bytes(100), 422, "unreadable"),
    ],
)
def test_invalid_images_are_reported_with_a_type(
    client: httpx.Client, sent: bytes, status: int, kind: str
) -> None:
    answer = client.post("/api/predict", content=sent)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["type"] == kind
    assert len(error["message"]) > 10


def test_invalid_requests_are_reported_with_a_type(client: httpx.Client) -> None:
    answer = client.post("/api/predict", content=b"x", params={"multiple": "perhaps"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, "invalid")
    assert "multiple" in answer.json()["error"]["message"]
    answer = client.get("/api/predict")
    assert (answer.status_code, answer.json()["error"]["type"]) == (405, "method_not_allowed")


def test_no_file_of_the_server_can_be_reached(client: httpx.Client) -> None:
    for path in (
        "/server.py",
        "/..%2fserver.py",
        "/%2e%2e/%2e%2e/cli.py",
        "/lightning_logs/version_0/config.yaml",
        "/etc/passwd",
        "//etc/passwd",
    ):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found")


def test_pages_of_other_sites_are_refused(client: httpx.Client) -> None:
    sent = encode(draw_seven())
    for path in ("/api/predict", "/api/corrections?label=7"):
        answer = client.post(path, content=sent, headers={"origin": "https://elsewhere.example"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (403, "foreign_origin")
    for host in ("elsewhere.example", "elsewhere.example:80"):  # a name may resolve to this server
        answer = client.get("/api/health", headers={"host": host})
        assert (answer.status_code, answer.json()["error"]["type"]) == (403, "foreign_host")
    own = client.base_url.copy_with(path="").__str__().rstrip("/")
    assert client.post("/api/predict", content=sent, headers={"origin": own}).status_code == 200


def test_corrections_become_a_folder_to_train_on(client: httpx.Client, home: Path) -> None:
    sent = encode(draw_seven())
    for _ in range(2):  # the same image twice is saved once
        answer = client.post("/api/corrections", content=sent, params={"label": 7})
        assert answer.status_code == 201
    (saved,) = (home / "kept").rglob("*.*")
    assert saved.parent.name == "7"
    assert answer.json() == {"kept": f"7/{saved.name}"}
    # The input of the network is saved, rather than the file.
    assert np.array_equal(
        mnist_format.from_image(mnist_format.read(saved)), mnist_format.from_image(draw_seven())
    )
    deep = Image.fromarray(np.asarray(draw_seven(size=300)).astype(np.uint16) * 257)
    answer = client.post("/api/corrections", content=encode(deep), params={"label": 7}).json()
    ink = mnist_format.from_image(mnist_format.read(home / "kept" / answer["kept"]))
    assert np.array_equal(ink, mnist_format.from_image(deep))
    (home / "kept" / answer["kept"]).unlink()
    for label, body in ((10, sent), (-1, sent), ("../x", sent), (3, b"no picture")):
        answer = client.post("/api/corrections", content=body, params={"label": label})
        assert answer.status_code == 422
    assert len(list((home / "kept").rglob("*.*"))) == 1


def test_the_server_describes_itself(client: httpx.Client) -> None:
    health = client.get("/api/health").json()
    assert health["status"] == "ok"
    assert (health["run"], health["collects"]) == ("version_0", True)
    described = client.get("/openapi.json").json()
    names = ["corrections", "health", "neighbors", "network", "predict", "runs", "watch"]
    assert sorted(described["paths"]) == [f"/api/{name}" for name in names]
    assert client.get("/docs").headers["content-type"].startswith("text/html")


@pytest.mark.slow
def test_without_collect_nothing_is_saved(home: Path) -> None:
    for address in serving(home, "1"):
        answer = httpx.post(f"{address}/api/corrections?label=7", content=encode(draw_seven()))
        assert answer.status_code == 404
        assert httpx.get(f"{address}/api/health").json()["collects"] is False


def test_mistakes_in_the_command_are_reported(command: Command, home: Path) -> None:
    where = ("--trainer.default_root_dir", str(home))
    assert "run not found: 9" in command("serve", "9", *where).err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = command("serve", "0", *where, "--port", port)
    assert result.status == 1
    assert f"cannot serve at 127.0.0.1, port {port}: address already in use" in result.err
    for port in ("70000", "-1"):
        assert f"--port {port}: a port is" in command("serve", "0", *where, "--port", port).err
    result = command("serve", "0", "--port", "x")
    assert "--port: invalid value x; expected an integer" in result.err


def test_responses_are_not_delayed() -> None:
    with (
        open_socket("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_missing_extra_is_named() -> None:
    script = (
        "import sys; sys.modules['optuna'] = None\n"
        "from mnist_lightning.cli.main import main\n"
        "sys.exit(main(['sweep', '--config', 'a.yaml', '--space', 'b.yaml']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "sweep needs optuna; install it: pip install 'mnist-lightning[sweep]'" in done.stderr


def test_simultaneous_equal_corrections_are_saved_once(client: httpx.Client, home: Path) -> None:
    sent = encode(draw_seven(width=14))

    def keep(_: int) -> int:
        return httpx.post(
            client.base_url.join("/api/corrections?label=1"), content=sent
        ).status_code

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(keep, range(24))) == {201}
    assert len(list((home / "kept" / "1").iterdir())) == 1


def test_failures_of_the_server_are_reported_as_json(client: httpx.Client, home: Path) -> None:
    (home / "kept" / "5").write_text("in the way")
    answer = client.post("/api/corrections", content=encode(draw_seven()), params={"label": 5})
    assert (answer.status_code, answer.json()["error"]["type"]) == (507, "not_kept")
    answer = client.post("/api/predict", content=b"x", headers={"origin": "http://["})
    assert (answer.status_code, answer.json()["error"]["type"]) == (403, "foreign_origin")


def test_an_unwritable_directory_is_reported_before_serving(command: Command, home: Path) -> None:
    Path("file").write_text("in the way")
    where = ("--trainer.default_root_dir", str(home))
    result = command("serve", "0", *where, "--collect", "file")
    assert result.status == 1
    assert "--collect file: file exists; use another folder" in result.err
    assert "--host is empty" in command("serve", "0", *where, "--host", "").err


@pytest.mark.slow
def test_a_run_of_another_directory_is_listed_and_used(home: Path, tmp_path: Path) -> None:
    run = home / "lightning_logs" / "version_1"
    for address in serving(tmp_path, str(run)):
        runs = {each["name"]: each["network"] for each in httpx.get(f"{address}/api/runs").json()}
        assert runs == {"version_1": "DigitNet", "pretrained": "ResidualCNN"}
        sent = encode(draw_seven())
        answer = httpx.post(f"{address}/api/predict?run=version_1", content=sent).json()
        (expected,) = load(run).read(draw_seven())
        probabilities = answer["digits"][0]["probabilities"]
        assert probabilities == pytest.approx(expected.probabilities.tolist())
