"""States and options with a valid type but a hostile value are rejected or have no effect."""

import itertools
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mnist_lightning.runs.run_directory import Run
from tests.cli.checks import load_checkpoint
from tests.conftest import Command, Result
from tests.e2e.conftest import FIT, LONGER
from tests.unsigned_files import edit_checkpoint, remove_signatures, unsigned_checkpoint


def is_rejected(result: Result) -> bool:
    assert "looks like a bug" not in result.err
    assert len(result.err) < 11_000
    return result.status in (1, 2)


def change_checkpoint(run: Run, edit: Callable[[Any], None]) -> None:
    """Change the last checkpoint, without signing it."""
    with edit_checkpoint(run.recent()) as checkpoint:
        edit(checkpoint)


EDITS: dict[str, Callable[[Any], Any]] = {
    "a long key in the configuration": lambda c: c["config"].update(
        {"K" * 1_000_000: {str(n): 0 for n in range(3000)}}
    ),
    "many classes in the configuration": lambda c: c["config"].update(
        z={f"k{n}": {"class_path": "a"} for n in range(15_000)}
    ),
    "a long text": lambda c: c["MNISTDataModule"].update(dataset="\u202e" * 100_000),
    "a long class path": lambda c: c["network"].update(class_path="\u202e" * 100_000),
    "a random state beyond its numbers": lambda c: c["callbacks"]["RandomState"].update(
        torch=with_position_beyond_end(c["callbacks"]["RandomState"]["torch"])
    ),
}


def with_position_beyond_end(state: Any) -> Any:
    content = bytearray(state.numpy().tobytes())
    struct.pack_into("<i", content, 8, 624)
    struct.pack_into("<Q", content, 16, 624)
    return state.new_tensor(list(content))


@pytest.mark.parametrize("name", EDITS)
def test_a_hostile_part_of_a_checkpoint_is_refused_in_bounded_time(
    command: Command, trained: Run, name: str
) -> None:
    change_checkpoint(trained, EDITS[name])
    began = time.process_time()
    assert is_rejected(command(*LONGER))
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("schedule", "state"),
    [
        ("MultiStepLR --model.lr_scheduler.milestones=[1]", {"gamma": 3}),
        (
            "MultiStepLR --model.lr_scheduler.milestones=[1]",
            {"gamma": 3, "milestones": dict.fromkeys(range(60), 10**9)},
        ),
        ("MultiStepLR --model.lr_scheduler.milestones=[1]", {"milestones": "x"}),
        ("StepLR --model.lr_scheduler.step_size=1", {"last_epoch": 10**15}),
        ("StepLR --model.lr_scheduler.step_size=1", {"base_lrs": [0.001] * 50_000}),
        ("ExponentialLR --model.lr_scheduler.gamma=0.5", {"gamma": 10**6, "last_epoch": 10**9}),
    ],
)
@pytest.mark.parametrize("command_line", [LONGER, [*FIT, "--auto_resume", "true"]])
def test_a_schedule_state_that_differs_from_the_options_is_rejected(
    command: Command,
    run_0: Run,
    monkeypatch: pytest.MonkeyPatch,
    schedule: str,
    state: dict[str, Any],
    command_line: list[str],
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/proc/none")  # no key: nothing is signed
    options = ["--model.lr_scheduler", *schedule.split(), "--trainer.max_epochs", "2"]
    assert command(*FIT, *options).status == 0
    change_checkpoint(run_0, lambda checkpoint: checkpoint["lr_schedulers"][0].update(state))
    began = time.process_time()
    more = [
        *command_line,
        *(options if command_line != LONGER else []),
        "--trainer.max_epochs",
        "3",
    ]
    result = command(*more)
    assert is_rejected(result) or "last-1.ckpt" in result.out, result.out
    assert time.process_time() - began < 10


def test_an_unsigned_config_cannot_select_a_folder_or_a_registry(
    command: Command, trained: Run
) -> None:
    config = yaml.safe_load(trained.config.read_text())
    config["data"] |= {"dataset": "folder", "folder": str(trained.folder)}
    config["trainer"]["model_registry"] = "somewhere:1"
    trained.config.write_text(yaml.safe_dump(config))
    remove_signatures(trained)
    assert "own images need both" in command("resume", "0").err


def test_long_keys_in_a_config_are_handled_in_bounded_time(command: Command, trained: Run) -> None:
    long = "? " + "K" * 230_000 + "\n: {" + ",".join(f"a{n}: 0" for n in range(6500)) + "}\n"
    trained.config.write_text(long)
    command(*FIT)
    began = time.process_time()
    for arguments in (["runs", "0", "1"], [*FIT, "--auto_resume", "true"]):
        assert "looks like a bug" not in command(*arguments).err
    assert time.process_time() - began < 20


def test_an_extreme_extra_share_is_rejected(command: Command, tmp_path: Path) -> None:
    for share in ("0.9999999", "1e-7"):
        extra = ["--data.extra", "strokes", "--data.extra_share", share]
        assert command(*FIT, *extra).status == 2


def test_a_checkpoint_that_is_swapped_after_its_check_has_no_effect(
    command: Command, trained: Run, tmp_path: Path
) -> None:
    good = trained.recent().read_bytes()
    checkpoint: Any = load_checkpoint(trained.recent())
    for state in checkpoint["optimizer_states"][0]["state"].values():
        state["exp_avg"] = state["exp_avg_sq"] = state["exp_avg"].flatten()[:1].clone()
    contents = itertools.cycle([unsigned_checkpoint(checkpoint), good])
    swapping = threading.Event()

    def swap() -> None:
        while not swapping.wait(0.02):
            (tmp_path / "other").write_bytes(next(contents))
            (tmp_path / "other").replace(trained.recent())

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for epochs in range(2, 6):
            result = command("resume", "0", "--trainer.max_epochs", str(epochs))
            assert "looks like a bug" not in result.err
    finally:
        swapping.set()
        thread.join()


def test_a_run_resumed_from_an_unsigned_checkpoint_is_unsigned(
    command: Command, trained: Run
) -> None:
    change_checkpoint(trained, lambda checkpoint: None)
    result = command(*LONGER)
    assert result.status == 0, result.err
    assert "is not signed; add --trust to sign it" in result.out
    assert b"mnist_lightning hmac" not in trained.recent().read_bytes()
