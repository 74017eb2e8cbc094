"""A run in several processes: the same samples, the same metrics, the same bits."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mnist_lightning import distributed
from mnist_lightning.cli.main import main
from mnist_lightning.cli.verify import first_difference_of_runs
from mnist_lightning.data.augmentations import Deformation
from mnist_lightning.data.loader import BatchDataset, BatchLoader
from mnist_lightning.runs.metrics_csv import METRICS_FILE, read_metrics
from mnist_lightning.runs.predictions_csv import read_predictions
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.runs.snapshots import list_epochs, read_snapshot
from mnist_lightning.training.callbacks.graceful_shutdown import GracefulShutdown
from tests.conftest import DIGITS

PROGRAM = [sys.executable, "-m", "mnist_lightning"]
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
FIT = ["fit", *DIGITS, "--trainer.accelerator", "cpu", "--trainer.max_epochs", "3"]
MLP = ["--model.network", "MultilayerPerceptron"]
MORE = {"test": [], "resume": ["--trainer.max_epochs", "4"]}


def start(arguments: Sequence[str], folder: Path, **environment: str) -> subprocess.Popen[str]:
    """Start a command in a folder."""
    folder.mkdir(exist_ok=True)
    # The tests may run in a job of SLURM, whose variables Lightning would read.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    return subprocess.Popen(
        arguments,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=plain | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"} | environment,
    )


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    """Wait for a command; return its output."""
    try:
        printed, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == status, printed
    return printed


def only_run(folder: Path) -> Run:
    """Return the only run in a folder."""
    (only,) = (folder / "lightning_logs").glob("version_*")
    return Run(only)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an uninterrupted run in two processes, with dropout."""
    folder = tmp_path_factory.mktemp("whole")
    finish(start([*PROGRAM, *FIT, *TWO, "--trainer.max_epochs", "12"], folder))
    return folder


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("augment", [[], [Deformation(degrees=10)]])
def test_processes_divide_each_batch(
    count: int, augment: list[Deformation], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.arange(28 * 28 * 65, dtype=torch.float32).remainder(251).byte()
    dataset = BatchDataset(images.view(-1, 28, 28), torch.arange(65), 16, 3, augment)
    alone = list(BatchLoader(dataset))
    shares = []
    for rank in range(count):
        monkeypatch.setattr(distributed, "world_size", lambda: count)
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(list(BatchLoader(dataset)))
    for batch, *parts in zip(alone, *shares, strict=True):
        for tensor, shards in zip(batch, zip(*parts, strict=True), strict=True):
            assert torch.equal(torch.cat(shards), tensor)


def test_a_signal_during_communication_is_handled_at_the_next_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutdown, requested = GracefulShutdown(), []

    def all_reduce_max(number: int, device: object) -> int:
        shutdown._record(signal.SIGTERM, None)
        return number

    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce_max", all_reduce_max)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=None))
    for _ in range(2):
        shutdown.raise_if_requested()  # must not raise: the other process would wait forever
        requested.append(shutdown.is_requested(trainer))  # type: ignore[arg-type] # needs no more
    assert requested == [False, True]
    with pytest.raises(KeyboardInterrupt):
        shutdown.raise_if_requested()
    assert shutdown.status == 143


def test_one_and_two_processes_give_the_same_metrics(tmp_path: Path) -> None:
    # 1,300 images are 3 batches of 433 and one image, which only one process has.
    for name, options in (("one", []), ("two", TWO)):
        finish(start([*PROGRAM, *FIT, *MLP, *options, "--data.batch_size", "433"], tmp_path / name))
    one, two = only_run(tmp_path / "one"), only_run(tmp_path / "two")
    curves = [read_metrics(run.folder / METRICS_FILE) for run in (one, two)]
    assert len(curves[0]) == len(curves[1])
    for here, there in zip(*curves, strict=True):
        assert here.keys() == there.keys()
        for name in here.keys() - {"dataset"}:
            if here[name]:
                assert float(there[name]) == pytest.approx(float(here[name]), rel=1e-4), name
    for epoch in range(4):
        snapshots = [read_snapshot(run.snapshots, epoch) for run in (one, two)]
        assert snapshots[0] is not None
        assert snapshots[1] is not None
        assert snapshots[0].confusion == snapshots[1].confusion
        assert snapshots[0].digit.pixels == snapshots[1].digit.pixels
    # Test again, with one process and with two.
    accuracies, labels = [], []
    for options in ([], TWO):
        printed = finish(start([*PROGRAM, "test", "0", *options], tmp_path / "two"))
        accuracies.append(re.findall(r"test accuracy +│ +([\d.]+)|correct +│ (\d+)", printed))
        labels.append(read_predictions(two.predictions).predicted)
    assert accuracies[0] == accuracies[1]
    assert np.array_equal(labels[0], labels[1])
    assert read_predictions(two.predictions).true.tolist() == (
        read_predictions(one.predictions).true.tolist()
    )


def test_only_the_first_process_serves_the_page_and_writes_snapshots(tmp_path: Path) -> None:
    printed = finish(start([*PROGRAM, *FIT, *TWO, "--watch"], tmp_path, DISPLAY=""))
    assert len(re.findall("^watch the training: http://", printed, re.MULTILINE)) == 1
    assert "--watch" not in printed  # no message about a problem
    assert list_epochs(only_run(tmp_path).snapshots) == [0, 1, 2, 3]


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_a_resumed_run_in_two_processes_has_the_same_bits(
    uninterrupted: Path, tmp_path: Path, signum: signal.Signals, status: int
) -> None:
    process = start([*PROGRAM, *FIT, *TWO, "--trainer.max_epochs", "12"], tmp_path)
    third = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last-2.ckpt"
    while not third.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signum)  # to the first process only
    finish(process, status)
    finish(start([*PROGRAM, "resume"], tmp_path))
    assert first_difference_of_runs(only_run(uninterrupted), only_run(tmp_path)) is None


def test_a_run_in_two_processes_that_ended_within_epochs_has_the_same_bits(
    uninterrupted: Path, tmp_path: Path
) -> None:
    for command, steps in [
        ([*FIT, "--trainer.max_epochs", "12"], 7),
        (["resume"], 30),
        (["resume"], 66),
        (["resume"], 101),
    ]:
        finish(start([*PROGRAM, *command, *TWO, "--trainer.max_steps", str(steps)], tmp_path))
    to_the_end = ["--trainer.max_steps", "-1", "--trainer.max_epochs", "12"]
    finish(start([*PROGRAM, "resume", *to_the_end], tmp_path))
    assert first_difference_of_runs(only_run(uninterrupted), only_run(tmp_path)) is None


def test_a_run_with_gradient_accumulation_is_saved_within_an_epoch(
    tmp_path: Path,
) -> None:
    accumulate = ["--trainer.accumulate_grad_batches", "2", "--data.batch_size", "2"]
    process = start([*PROGRAM, *FIT, *TWO, *accumulate, "--autosave", "0.001"], tmp_path)
    while not list(tmp_path.glob("lightning_logs/*/checkpoints/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert re.search("Saved through batch [0-9]+ of epoch 1", finish(process, 143))


def test_a_run_resumed_in_another_number_of_processes_reports_it(tmp_path: Path) -> None:
    finish(start([*PROGRAM, *FIT, *TWO], tmp_path))
    alone = ["--trainer.devices", "1", "--trainer.strategy", "auto"]
    printed = finish(start([*PROGRAM, "resume", "--trainer.max_epochs", "4", *alone], tmp_path))
    assert "from 2 processes, this run uses 1: same batches" in printed
    finish(start([*PROGRAM, "resume", "--trainer.max_epochs", "5", *TWO], tmp_path))
    assert only_run(tmp_path).summary()["epochs"] == 5


@pytest.mark.parametrize("command", ["test", "resume"])
def test_processes_that_find_different_runs_end_with_an_error(tmp_path: Path, command: str) -> None:
    finish(start([*PROGRAM, *FIT, *MLP, "--seeds", "1..2"], tmp_path))
    # As if version_1 was created after the first process searched for the run.
    with_rank = ["bash", "-c", 'exec "${@:1:4}" "$RANK" "${@:5}"', "bash", *PROGRAM, command]
    each = [*with_rank, *TWO, "--trainer.accelerator", "cpu", *MORE[command]]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
    printed = finish(start([*torchrun, "--nproc_per_node", "2", *each], tmp_path), 1)
    assert printed.count("another run was created at the same time: give the version") == 1


def test_torchrun_starts_the_processes(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc_per_node", "2", "-m", "mnist_lightning", *FIT, *MLP]
    printed = finish(start([*torchrun, *TWO], tmp_path))
    assert printed.count("run: lightning_logs/version_0") == 1
    assert only_run(tmp_path).summary()["state"] == "finished"


def test_an_error_of_all_processes_is_reported_once_if_the_first_is_last(
    tmp_path: Path,
) -> None:
    # torchrun ends the other processes as soon as one has ended.
    late = ["bash", "-c", '[ "$RANK" = 1 ] || sleep 3; exec "$@"', "bash", *PROGRAM, *FIT, *MLP]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
    printed = finish(start([*torchrun, "--nproc_per_node", "2", *late], tmp_path), 1)
    message = "2 processes were started, but the options are for one: use --trainer.devices 2"
    assert printed.count(message) == 1


def test_an_error_of_all_processes_is_reported_once_with_ddp(tmp_path: Path) -> None:
    printed = finish(start([*PROGRAM, *FIT, *TWO, "--data.val_size", "3000"], tmp_path), 2)
    assert printed.count("--data.val_size 3000 leaves no training images") == 1


def test_a_process_started_by_the_first_does_not_wait_to_report_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("mnist_lightning.cli.main.time.sleep", lambda _: pytest.fail("it waited"))
    assert main(["fti"]) == 2
    assert capsys.readouterr().err == ""


def test_an_error_in_only_another_process_is_reported_by_that_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("mnist_lightning.cli.main.ERROR_WAIT_SECONDS", 0)
    assert main(["fti"]) == 2
    assert "error: process 1: unknown command 'fti'" in capsys.readouterr().err


def test_srun_starts_the_processes(tmp_path: Path) -> None:
    # The variables of a SLURM step; docs/slurm.sh was run on a real cluster.
    common = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "run", "SLURM_STEP_ID": "0"}
    common |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"}
    common |= {"SLURM_NODEID": "0", "SLURM_STEP_NODELIST": "127.0.0.1"}
    common |= {"SLURM_JOB_NODELIST": "127.0.0.1", "MASTER_PORT": str(20_000 + os.getpid() % 12_000)}
    tasks = [
        start([*PROGRAM, *FIT, *TWO], tmp_path, SLURM_PROCID=rank, SLURM_LOCALID=rank, **common)
        for rank in "01"
    ]
    first, second = (finish(task) for task in tasks)
    assert "run: lightning_logs/version_0" in first
    assert second == ""
    assert only_run(tmp_path).summary()["state"] == "finished"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two GPUs here")
def test_two_gpus_train(tmp_path: Path) -> None:
    finish(start([*PROGRAM, *FIT, *MLP, *TWO, "--trainer.accelerator", "gpu"], tmp_path))
    assert only_run(tmp_path).summary()["state"] == "finished"
