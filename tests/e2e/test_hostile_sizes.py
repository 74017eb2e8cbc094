"""Files that need more memory, time or space than their size suggests are refused in one line."""

import os
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from mnist_lightning.errors import UserError
from mnist_lightning.runs import checkpoint as checkpoints
from mnist_lightning.runs import run_directory
from mnist_lightning.runs.metrics_csv import read_metrics
from mnist_lightning.runs.recent_checkpoints import MAX_ATTEMPTS, recent_checkpoints
from mnist_lightning.runs.run_directory import MAX_VERSION, Run
from tests.cli.checks import load_checkpoint
from tests.conftest import AddRun, Command
from tests.e2e.conftest import FIT, LONGER
from tests.unsigned_files import edit_checkpoint, remove_signatures, unsigned_checkpoint


def _set_view_of_last_element(group: dict[str, Any], state: dict[str, Any]) -> None:
    """Use a view in which all elements are the last of the storage; kernels write beyond it."""
    size = state["exp_avg"].numel()
    shape = state["exp_avg"].shape
    state["exp_avg"] = torch.zeros(size + 1).as_strided(shape, (0,) * len(shape), size)


def _set_amsgrad(group: dict[str, Any], state: dict[str, Any]) -> None:
    group["amsgrad"] = True
    state["max_exp_avg_sq"] = torch.tensor(0.0)


def _add_state(group: dict[str, Any], state: dict[str, Any]) -> None:
    state["max_exp_avg_sq"] = torch.tensor(0.0)


@pytest.mark.parametrize("change", [_set_view_of_last_element, _set_amsgrad, _add_state])
def test_an_optimizer_state_with_an_invalid_layout_is_damaged(
    command: Command, trained: Run, change: Callable[[dict[str, Any], dict[str, Any]], None]
) -> None:
    with edit_checkpoint(trained.recent()) as checkpoint:
        optimizer = checkpoint["optimizer_states"][0]
        for state in optimizer["state"].values():
            change(optimizer["param_groups"][0], state)
    result = command(*LONGER)
    assert result.status == 1
    assert "last.ckpt is damaged" in result.out + result.err


@pytest.mark.parametrize("position", [625, -1, 2**31 - 1])
def test_a_random_state_with_an_invalid_position_is_rejected(
    command: Command, trained: Run, position: int
) -> None:
    with edit_checkpoint(trained.recent()) as checkpoint:
        name, keys, _, *rest = checkpoint["callbacks"]["RandomState"]["numpy"]
        checkpoint["callbacks"]["RandomState"]["numpy"] = (name, keys, position, *rest)
    result = command(*LONGER)
    assert result.status == 1
    assert f"NumPy's position is {position}" in result.out


def test_the_number_of_checkpoints_to_try_is_limited(trained: Run) -> None:
    for number in range(1, 40):
        trained.recent(number).write_bytes(b"no checkpoint")
    (trained.checkpoints / f"last-{'9' * 5_000}.ckpt"[:200]).write_bytes(b"")
    paths = recent_checkpoints(trained)
    assert paths == [trained.recent(number) for number in range(MAX_ATTEMPTS)]


def test_a_large_checkpoint_must_be_signed(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "MAX_UNSIGNED_BYTES", 20_000)
    signed = trained.best.read_bytes()
    assert len(signed) > 20_000
    assert checkpoints.read_signed_checkpoint(trained.best)[1]
    trained.best.write_bytes(unsigned_checkpoint(load_checkpoint(trained.recent())))
    with pytest.raises(UserError, match="too large: the limit is 20,000 bytes"):
        checkpoints.read_checkpoint(trained.best)
    altered = bytearray(signed)
    altered[5_000] ^= 1
    trained.best.write_bytes(altered)
    with pytest.raises(UserError, match="too large: the limit is 20,000 bytes"):
        checkpoints.read_checkpoint(trained.best)


@pytest.mark.parametrize("name", ["best.ckpt", "wide.safetensors"])
def test_a_sparse_file_is_not_read_into_memory(command: Command, trained: Run, name: str) -> None:
    path = trained.checkpoints / name
    header = b'{"__metadata__":{}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(path, 1_900_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = command("predict", "x.png", "--run", str(path))
    assert result.status == 1
    assert "the limit is 150,000,000" in result.err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_all_event_files_share_one_limit(command: Command, trained: Run) -> None:
    length = struct.pack("<Q", 0)
    record = (
        length + struct.pack("<I", masked_crc32c(length)) + struct.pack("<I", masked_crc32c(b""))
    )
    for number in range(6):
        path = trained.folder / f"events.out.tfevents.9.{number}"
        path.write_bytes(record * 200_000)
    remove_signatures(trained)
    result = command(*LONGER)
    assert result.status == 0, result.err
    assert "tfevents.9.5 is damaged" in result.out


def test_non_ascii_text_is_limited_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"step,train/loss\n" + ("\U0001f600" + "x" * 90_000 + "\n").encode() * 60)
    with pytest.raises(UserError, match="the limit with non-ASCII text is 5,000,000 bytes"):
        read_metrics(path)


def test_new_runs_get_a_free_number_if_the_maximum_is_used(tmp_path: Path) -> None:
    for number in (0, 2, MAX_VERSION, 10**9 - 1):
        (tmp_path / f"version_{number}").mkdir()
    assert [run.version for run in run_directory.list_runs(tmp_path)] == [0, 2, MAX_VERSION]
    assert [run_directory.create_next(tmp_path).version for _ in range(2)] == [1, 3]


def test_init_from_rejects_a_network_without_arguments(command: Command, trained: Run) -> None:
    with edit_checkpoint(trained.best) as checkpoint:
        checkpoint["network"]["x"] = checkpoint["network"].pop("init_args")
    result = command(*FIT, "--init_from", "0")
    assert result.status == 2
    assert "--init_from: network mismatch" in result.err


def test_a_val_size_that_is_a_mapping_is_reported(command: Command, trained: Run) -> None:
    with edit_checkpoint(trained.best) as checkpoint:
        checkpoint["MNISTDataModule"]["val_size"] = {}
    result = command("validate", "0")
    assert "looks like a bug" not in result.err


@pytest.fixture
def two_runs(add_run: AddRun, run_0: Run) -> list[Run]:
    """Two copies of a short run."""
    for _ in range(2):
        add_run(*FIT[1:])
    return [run_0, Run(run_0.folder.with_name("version_1"))]


def test_a_comparison_shows_the_start_of_a_long_text(
    command: Command, two_runs: list[Run], run_0: Run
) -> None:
    config = run_0.read_config()
    config["model"]["text"] = "x" * 100_000
    run_0.config.write_text(yaml.safe_dump(config))
    table = run_0.folder / "metrics.csv"
    columns = table.read_text().partition("\n")[0].split(",")
    keys = {"step": "9", "dataset": "digits", "epoch": "2"}
    huge = [keys.get(name, "1.7e308") for name in columns]
    table.write_text(f"{table.read_text()}{','.join(huge)}\n")
    result = command("runs", "0", "1")
    assert result.status == 0, result.err
    assert "xxx…" in result.out
    assert len(result.out) < 5_000


def test_a_comparison_of_nested_settings_is_short(command: Command, two_runs: list[Run]) -> None:
    for version, run in enumerate(two_runs):
        config = run.read_config()
        settings: dict[str, Any] = {f"leaf{number}": version for number in range(1_000)}
        for _ in range(20):
            settings = {"k" * 95: settings}
        config["model"] |= settings
        run.config.write_text(yaml.safe_dump(config, default_flow_style=True))
    result = command("runs", "0", "1")
    assert result.status == 0, result.err
    assert "… and " in result.out
    assert len(result.out) < 100_000


def test_optimizer_counts_that_differ_from_the_options_are_rejected(
    command: Command, add_run: AddRun, run_0: Run
) -> None:
    add_run(*FIT[1:], "--model.optimizer", "LBFGS")
    with edit_checkpoint(run_0.recent()) as checkpoint:
        checkpoint["optimizer_states"][0]["param_groups"][0]["max_iter"] = 10**9
    result = command("resume", str(run_0.recent()), "--trainer.max_epochs", "2")
    assert result.status == 1
    assert "max_iter differs from the options" in result.err


def test_a_batch_number_beyond_the_data_is_rejected(command: Command, trained: Run) -> None:
    with edit_checkpoint(trained.recent()) as checkpoint:
        loop = checkpoint["loops"]["fit_loop"]
        loop["epoch_progress"]["current"]["ready"] += 1
        batches = loop["epoch_loop.batch_progress"]
        batches["is_last_batch"] = False
        batches["current"] = dict.fromkeys(batches["current"], 10**15)
        for loader in loop["state_dict"]["combined_loader"]:
            loader |= {"epoch": 1, "given": 10**15}
    result = command("resume", str(trained.recent()), "--trainer.max_epochs", "2")
    assert result.status == 1
    assert "batch 1000000000000000 of epoch 2, but an epoch has fewer batches" in result.err


def test_the_length_of_a_message_is_limited() -> None:
    assert len(str(UserError("x" * 5_000_000))) == 2_000
