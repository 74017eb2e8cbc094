"""Teaching with a real server and real trainings, without MNIST."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from mnist_lightning import load
from mnist_lightning.deployment.fine_tuning_options import plan_training
from mnist_lightning.runs.run_directory import Run
from tests.conftest import Command
from tests.deployment.conftest import serving
from tests.images import draw_seven, encode
from tests.processes import child_process

SEVEN = encode(draw_seven())
LABEL = 1  # the seven is to be read as this


@pytest.fixture(scope="module")
def teaching_home(home: Path) -> Path:
    """The directory of the server, with two runs."""
    return home


@pytest.fixture(scope="module")
def client(teaching_home: Path) -> Iterator[httpx.Client]:
    """A client of a server that teaches the pretrained network."""
    for address in serving(teaching_home, "pretrained", "--teach", "--data.data_dir", "nothing"):
        with httpx.Client(base_url=address, timeout=60) as client:
            yield client


def wait(client: httpx.Client, until: str = "", seconds: float = 900) -> dict[str, Any]:
    """Wait until a fine-tuning has this stage, or has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        state: dict[str, Any] = client.get("/api/learn").json()
        if state["state"] != "running" or (until and until == state["stage"]):
            return state
        time.sleep(0.2)
    raise AssertionError(f"still running: {state}")


def test_nothing_is_learned_without_corrected_digits(client: httpx.Client) -> None:
    assert client.get("/api/health").json()["teaches"] is True
    assert client.get("/api/learn").json()["state"] == "idle"
    answer = client.post("/api/learn")
    assert (answer.status_code, answer.json()["error"]["type"]) == (409, "no_corrections")
    answer = client.post("/api/learn/cancel")
    assert (answer.status_code, answer.json()["error"]["type"]) == (409, "not_learning")


def test_other_sites_and_names_cannot_teach(client: httpx.Client) -> None:
    client.post("/api/corrections", content=SEVEN, params={"label": LABEL})
    kept = client.get("/api/corrections").json()["newest"][0]["kept"]
    for method, path in (
        *(("POST", "/api/learn"), ("POST", "/api/learn/cancel"), ("GET", "/api/learn")),
        *(("DELETE", f"/api/corrections?kept={kept}"), ("GET", "/api/corrections")),
    ):
        foreign = client.request(method, path, headers={"origin": "https://elsewhere.example"})
        assert (foreign.status_code, foreign.json()["error"]["type"]) == (403, "foreign_origin")
        null = client.request(method, path, headers={"origin": "null"})
        assert null.status_code == 403
        rebound = client.request(method, path, headers={"host": "elsewhere.example"})
        assert rebound.json()["error"]["type"] == "foreign_host"
        # A proxy on this machine may forward requests from elsewhere.
        proxied = client.request(method, path, headers={"host": "192.0.2.7"})
        assert (proxied.status_code, proxied.json()["error"]["type"]) == (403, "not_local")
    assert client.get("/api/learn").json()["state"] == "idle"
    assert client.get("/api/corrections").json()["total"] == 1


def test_corrected_digits_are_listed_and_removed(client: httpx.Client) -> None:
    client.post("/api/corrections", content=SEVEN, params={"label": 5})
    client.post("/api/corrections", content=SEVEN, params={"label": LABEL})
    (listed,) = client.get("/api/corrections").json()["newest"]
    assert listed["label"] == LABEL
    assert client.delete("/api/corrections", params={"kept": "../x"}).status_code == 404
    answer = client.delete("/api/corrections", params={"kept": listed["kept"]})
    assert answer.json() == {"total": 0, "newest": []}


def test_a_refused_method_comes_with_the_methods_of_all_routes(client: httpx.Client) -> None:
    for path, allowed in (
        ("/api/corrections", "DELETE, GET, POST, HEAD, OPTIONS"),
        ("/api/learn", "GET, POST, HEAD, OPTIONS"),
        ("/api/learn/cancel", "POST, OPTIONS"),
    ):
        answer = client.patch(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        assert client.options(path).headers["allow"] == allowed


@pytest.mark.slow
def test_a_corrected_digit_is_learned(client: httpx.Client, teaching_home: Path) -> None:
    client.post("/api/corrections", content=SEVEN, params={"label": LABEL})
    read = client.post("/api/predict", content=SEVEN).json()["digits"][0]["label"]
    assert read != LABEL
    started = client.post("/api/learn")
    assert (started.status_code, started.json()["state"]) == (202, "running")
    again = client.post("/api/learn")
    assert (again.status_code, again.json()["error"]["type"]) == (409, "already_learning")
    epochs = set()
    while (state := client.get("/api/learn").json())["state"] == "running":
        epochs.add(state["epoch"])
        asked = time.monotonic()
        assert client.post("/api/predict", content=SEVEN).status_code == 200
        assert time.monotonic() - asked < 5  # the page stays usable
    assert state["state"] == "finished", state["message"]
    assert len(epochs) > 2
    assert state["epochs"] == plan_training(["strokes"], 1).epochs
    comparison = state["comparison"]
    assert comparison["own"]["after"] == comparison["own"]["total"] == 1
    (own,) = comparison["own"]["shown"]
    assert (own["label"], own["before"], own["after"]) == (LABEL, read, LABEL)
    held_out = comparison["held_out"]
    assert (held_out["dataset"], held_out["total"], held_out["are_new"]) == ("digits", 200, True)
    assert held_out["after"] - held_out["before"] == held_out["learned"] - held_out["forgotten"]
    assert held_out["after"] >= 180
    # The new run is an ordinary one.
    query = {"run": state["run"]}
    after = client.post("/api/predict", content=SEVEN, params=query).json()["digits"][0]["label"]
    assert after == LABEL
    run = Run(teaching_home / "lightning_logs" / state["run"])
    assert run.summary("state", "dataset", "test_size") == {
        **{"state": "finished", "dataset": "folder", "test_size": 0}
    }
    assert "pretrained/model.safetensors" in run.summary()["init_from"]
    (reading,) = load(run.folder).read(draw_seven(), multiple=False)
    assert reading.label == LABEL


@pytest.mark.slow
def test_a_cancelled_fine_tuning_ends_and_another_one_starts(client: httpx.Client) -> None:
    client.post("/api/corrections", content=SEVEN, params={"label": LABEL})
    for stage in ("starting", "training"):
        client.post("/api/learn", params={"run": "version_1"})
        assert wait(client, stage)["stage"] == stage
        state = client.post("/api/learn/cancel").json()
        assert (state["state"], state["base"]) == ("cancelled", "version_1")
    assert "resume" in state["message"] or state["message"] == ""


@pytest.mark.slow
def test_files_that_are_no_digits_are_skipped_and_reported(
    client: httpx.Client, teaching_home: Path
) -> None:
    folder = teaching_home / "my_digits"
    (folder / "3").mkdir(exist_ok=True)
    (folder / "3" / "text.png").write_text("<script>")
    (folder / "notes").mkdir(exist_ok=True)
    client.post("/api/corrections", content=SEVEN, params={"label": LABEL})
    client.post("/api/learn")
    state = wait(client)
    assert state["state"] == "finished", state["message"]
    assert any("1 of 2 files in my_digits are skipped" in note for note in state["notes"])
    (folder / "57").mkdir()
    draw_seven().save(folder / "57" / "seven.png")
    client.post("/api/learn")
    state = wait(client)
    assert state["state"] == "failed"
    assert "expected (1, 58) for the labels of folder" in state["message"]
    assert "\n" not in state["message"]


def wait_for_children(server: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the training of a server, which starts just after the server has reported it."""
    for _ in range(1200):
        children = psutil.Process(server.pid).children(recursive=True)
        for process in children:
            with suppress(psutil.Error):
                if "fit" in process.cmdline():
                    return list(children)
        time.sleep(0.05)
    raise AssertionError(f"no training among {children}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "signum"),
    [
        ("starting", signal.SIGKILL),
        ("starting", signal.SIGTERM),
        ("training", signal.SIGKILL),
        ("training", signal.SIGINT),
    ],
)
def test_a_training_ends_with_its_server(
    tmp_path: Path, stage: str, signum: signal.Signals
) -> None:
    command = [sys.executable, "-m", "mnist_lightning", "serve", "pretrained", "--teach"]
    with child_process(
        [*command, "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        with httpx.Client(base_url=address, timeout=60) as client:
            client.post("/api/corrections", content=SEVEN, params={"label": LABEL})
            client.post("/api/learn")
            assert wait(client, stage)["stage"] == stage
            children = wait_for_children(server)
        server.send_signal(signum)
        server.wait(300)
    _, alive = psutil.wait_procs(children, timeout=15)
    assert alive == []


def test_teaching_is_refused_if_others_may_connect(command: Command) -> None:
    for options, problem in (
        (("--host", "0.0.0.0"), "--host 0.0.0.0 lets other machines connect"),
        (("--allow_host", "example.org"), "--allow_host example.org lets browsers use another"),
    ):
        result = command("serve", "pretrained", "--port", "0", "--teach", *options)
        assert result.status == 2
        assert result.err.startswith(f"mnist-lightning: error: {problem}")
        assert result.err.count("\n") == 1
        assert not Path("my_digits").exists()


@pytest.mark.slow
def test_without_teach_there_are_no_such_requests(home: Path) -> None:
    for address in serving(home, "1", "--collect", "other"):
        for method, path in (("POST", "/api/learn"), ("GET", "/api/learn")):
            assert httpx.request(method, address + path).status_code == 404
        assert httpx.delete(f"{address}/api/corrections?kept=x").status_code == 405
        assert "teach.js" not in httpx.get(address).text


@pytest.mark.slow
def test_the_demo_teaches_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mnist_lightning", "demo", "--teach", "--no-browser"]
    with child_process(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as server:
        assert server.stdout is not None
        lines = [server.stdout.readline() for _ in range(4)]
        health = httpx.get(f"{lines[0].split()[-1]}/api/health").json()
        server.send_signal(signal.SIGINT)
        assert server.wait(300) == 0
    assert health["teaches"] is True
    assert "corrected digits are saved in my_digits" in lines[2]
    assert "new runs are in lightning_logs" in lines[3]
