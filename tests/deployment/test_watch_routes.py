"""The request for the progress of a run: what is new, also of runs with hostile files."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI
from filelock import FileLock

from mnist_lightning.deployment import watch_server
from mnist_lightning.deployment.watched_runs import MAX_SNAPSHOTS, WatchedRuns
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.runs.snapshots import snapshot_path, write_snapshot
from tests.runs.test_snapshots import SNAPSHOT

HEADER = "step,dataset,train/step_loss,epoch,train/loss,train/accuracy,val/loss,val/accuracy\n"


def write_metrics(run: Run, epochs: int, steps: int = 2) -> None:
    """Write the metrics of epochs, with the loss of each step."""
    rows = []
    for epoch in range(1, epochs + 1):
        rows += [f"{steps * (epoch - 1) + step},mnist,0.5,,,,,\n" for step in range(1, steps)]
        rows.append(f"{steps * epoch},mnist,0.5,{epoch},{1 / epoch},0.9,{2 / epoch},0.8\n")
    (run.folder / "metrics.csv").write_text(HEADER + "".join(rows))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run of three epochs."""
    run = Run(tmp_path / "lightning_logs" / "version_0")
    run.folder.mkdir(parents=True)
    network = {"class_path": "mnist_lightning.networks.tiny_cnn.TinyCNN", "init_args": {}}
    run.write_summary(
        {"state": "finished", "started": "now", "dataset": "mnist", "network": network}
    )
    run.config.write_text("trainer: {max_epochs: 3}")
    write_metrics(run, 3)
    for epoch in range(4):
        write_snapshot(run.snapshots, SNAPSHOT._replace(epoch=epoch))
    return run


@pytest.fixture
def runs(run: Run) -> WatchedRuns:
    return WatchedRuns(run, run.folder.parent)


class Client:
    """Sends requests to an application without a socket.

    They are sent in another thread: in this one, Playwright's event loop may run.
    """

    def __init__(self, app: FastAPI, portal: BlockingPortal) -> None:
        self._transport, self._portal = httpx.ASGITransport(app), portal

    def get(self, address: str, **options: Any) -> httpx.Response:
        """Send a request."""

        async def send() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=self._transport, base_url="http://testserver"
            ) as client:
                return await client.get(address, **options)

        return self._portal.call(send)


@pytest.fixture
def client(runs: WatchedRuns) -> Iterator[Client]:
    with start_blocking_portal() as portal:
        yield Client(watch_server.make_app(runs, frozenset({"testserver"})), portal)


def ask(client: Client, **query: Any) -> dict[str, Any]:
    response = client.get("/api/watch", params=query)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_finished_run_is_returned_completely(client: Client) -> None:
    answer = ask(client)
    facts = {"run": "version_0", "state": "finished", "follow": False, "can_draw": False}
    facts |= {"started": "now", "dataset": "mnist", "network": "TinyCNN", "max_epochs": 3}
    facts |= {"done": 3, "step": 6, "last_epoch": 3, "last_snapshot": 3}
    facts |= {"damaged": [], "problem": None}
    assert {name: answer[name] for name in facts} == facts
    assert [each["epoch"] for each in answer["epochs"]] == [1, 2, 3]
    assert answer["epochs"][1] == {
        **{"epoch": 2, "step": 4, "train_loss": 0.5, "train_accuracy": 0.9},
        **{"val_loss": 1.0, "val_accuracy": 0.8},
    }
    assert answer["step_losses"] == [[step, 0.5] for step in range(1, 7)]
    assert [each["epoch"] for each in answer["snapshots"]] == [0, 1, 2, 3]


def test_a_snapshot_is_returned_as_it_was_written(client: Client, run: Run) -> None:
    written = json.loads(snapshot_path(run.snapshots, 3).read_text())
    assert ask(client)["snapshots"][-1] == written


def test_only_what_is_new_is_returned(client: Client, run: Run) -> None:
    answer = ask(client, after=2, snapshots_after=3)
    assert [each["epoch"] for each in answer["epochs"]] == [3]
    assert answer["step_losses"] == [[5, 0.5], [6, 0.5]]
    assert answer["snapshots"] == []
    assert (answer["last_epoch"], answer["last_snapshot"]) == (3, 3)
    write_metrics(run, 4)
    write_snapshot(run.snapshots, SNAPSHOT._replace(epoch=4))
    answer = ask(client, after=3, snapshots_after=3)
    assert [each["epoch"] for each in answer["epochs"]] == [4]
    assert [each["epoch"] for each in answer["snapshots"]] == [4]


def test_the_state_is_that_of_the_process(client: Client, run: Run) -> None:
    summary = run.summary()
    run.write_summary(summary | {"state": "running"})
    with FileLock(run.lock_file):
        answer = ask(client)
        assert (answer["state"], answer["follow"]) == ("running", True)
        (run.folder / "summary.json").unlink()
        answer = ask(client)
        assert (answer["state"], answer["follow"]) == ("starting", True)
        run.write_summary(summary | {"state": "running"})
    answer = ask(client)  # the process was killed
    assert (answer["state"], answer["follow"]) == ("interrupted", False)
    run.write_summary(summary | {"state": "failed"})
    assert ask(client)["state"] == "failed"
    for state in ("<script>", "starting", 3):
        run.write_summary(summary | {"state": state})
        answer = ask(client)
        assert (answer["state"], answer["follow"]) == ("unknown", False)


def test_other_runs_are_selected_only_by_name(client: Client, run: Run) -> None:
    other = run.folder.with_name("version_7")
    shutil.copytree(run.folder, other)
    shutil.copytree(run.folder, run.folder.with_name("private"))
    assert ask(client, run="version_7")["run"] == "version_7"
    assert ask(client, run="version_0")["run"] == "version_0"
    for name in ("version_8", "private", "../lightning_logs/version_7", str(other), "", "7", "\0"):
        response = client.get("/api/watch", params={"run": name})
        assert (response.status_code, response.json()["error"]["type"]) == (404, "unknown_run")


@pytest.mark.parametrize(
    "query", [{"after": "x"}, {"after": -1}, {"snapshots_after": -2}, {"page": "x" * 41}]
)
def test_an_invalid_request_is_reported(client: Client, query: dict[str, str]) -> None:
    response = client.get("/api/watch", params=query)
    assert (response.status_code, response.json()["error"]["type"]) == (422, "invalid")


def test_a_thousand_epochs_are_thinned_and_fast(client: Client, run: Run) -> None:
    write_metrics(run, 1_000, steps=11)
    for epoch in range(1_001):
        snapshot_path(run.snapshots, epoch).write_text(
            snapshot_path(run.snapshots, 3).read_text().replace('"epoch":3', f'"epoch":{epoch}')
        )
    answer = ask(client)
    shown = [each["epoch"] for each in answer["snapshots"]]
    assert len(shown) == MAX_SNAPSHOTS
    assert (shown[0], shown[-1]) == (0, 1_000)
    assert {b - a for a, b in pairwise(shown)} == {10, 11}
    assert [each["epoch"] for each in answer["epochs"]] == list(range(1, 1_001))
    assert len(answer["step_losses"]) == 500
    assert answer["damaged"] == []
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        ask(client, after=999, snapshots_after=1_000)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.1


def test_damaged_and_hostile_files_are_reported(client: Client, run: Run) -> None:
    snapshot_path(run.snapshots, 1).write_text("{")
    snapshot_path(run.snapshots, 2).unlink()
    os.mkfifo(snapshot_path(run.snapshots, 2))
    snapshot_path(run.snapshots, 3).unlink()
    snapshot_path(run.snapshots, 3).symlink_to("/dev/zero")
    (run.folder / "metrics.csv").unlink()
    os.mkfifo(run.folder / "metrics.csv")
    run.config.unlink()
    os.mkfifo(run.config)
    answer = ask(client)
    assert answer["damaged"] == [1, 2, 3]
    assert [each["epoch"] for each in answer["snapshots"]] == [0]
    assert answer["problem"] == "metrics.csv is not a regular file"
    assert (answer["epochs"], answer["max_epochs"]) == ([], None)
    for content in (
        "[",
        "trainer: [1]",
        "trainer: {max_epochs: true}",
        "trainer: {max_epochs: -1}",
    ):
        run.config.unlink()
        run.config.write_text(content)
        assert ask(client)["max_epochs"] is None


def test_hostile_texts_are_made_printable(client: Client, run: Run) -> None:
    run.write_summary({"state": "\x1b[31m", "started": "\ud800", "dataset": "<script>\u202e" * 99})
    answer = ask(client)
    assert answer["state"] == "unknown"
    assert answer["started"] == r"\ud800"
    assert len(answer["dataset"]) <= 200
    assert "\u202e" not in answer["dataset"]


def test_without_metrics_the_number_of_epochs_is_known(client: Client, run: Run) -> None:
    (run.folder / "metrics.csv").unlink()
    assert ask(client)["done"] == 3  # from the snapshots
    shutil.rmtree(run.snapshots)
    run.write_summary(run.summary() | {"epochs": 2})
    answer = ask(client)
    assert (answer["done"], answer["last_epoch"], answer["problem"]) == (2, 0, None)


def test_a_removed_run_has_no_values(client: Client, run: Run) -> None:
    assert ask(client)["last_epoch"] == 3
    shutil.rmtree(run.folder)
    answer = ask(client)
    facts = [answer[name] for name in ("state", "last_epoch", "last_snapshot", "epochs", "step")]
    assert facts == ["unknown", 0, -1, [], 0]


def test_the_page_of_fit_follows_the_next_run_of_the_command(
    client: Client, runs: WatchedRuns, run: Run
) -> None:
    runs.expects_more = True
    assert ask(client)["follow"]
    shutil.copytree(run.folder, run.folder.with_name("version_1"))
    runs.run = Run(run.folder.with_name("version_1"))
    answer = ask(client)
    assert (answer["run"], answer["follow"]) == ("version_1", True)
    answer = ask(client, run="version_0")  # the earlier run is complete
    assert (answer["run"], answer["follow"]) == ("version_0", False)
    runs.expects_more = False
    assert not ask(client)["follow"]


def test_the_server_of_fit_waits_until_its_pages_have_the_final_state(
    client: Client, runs: WatchedRuns
) -> None:
    def seconds_to_wait(expects_page: bool = False) -> float:
        start = time.monotonic()
        runs.wait_for_pages(0.3, expects_page)
        return time.monotonic() - start

    assert seconds_to_wait() < 0.1
    assert seconds_to_wait(expects_page=True) >= 0.3  # the browser has not loaded the page yet
    runs.expects_more = True
    ask(client, page="a")
    ask(client, page="b")
    runs.expects_more = False
    ask(client, page="a")
    assert seconds_to_wait() >= 0.3
    ask(client, page="b")
    assert seconds_to_wait(expects_page=True) < 0.1


def test_the_files_of_the_page_are_served(client: Client) -> None:
    page = client.get("/watch")
    assert page.headers["content-type"].startswith("text/html")
    for name in ("watch.js", "watch_charts.js", "watch_snapshot.js", "watch.css", "page.css"):
        assert name in page.text
        assert client.get(f"/{name}").status_code == 200
    start = client.get("/")
    assert (start.status_code, start.headers["location"]) == (307, "/watch")
    foreign = client.get("/api/watch", headers={"host": "elsewhere.example"})
    assert (foreign.status_code, foreign.json()["error"]["type"]) == (403, "foreign_host")
    assert "default-src 'none'" in page.headers["content-security-policy"]
