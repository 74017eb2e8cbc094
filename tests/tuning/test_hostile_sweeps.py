"""Search spaces and folders of sweeps from an attacker."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_lightning.runs.run_directory import Run
from mnist_lightning.tuning.trial_runner import processes_of
from tests.conftest import Command
from tests.processes import child_process
from tests.tuning.conftest import SHORT, SHORT_SWEEP

pytestmark = pytest.mark.slow


EVIL = "open('executed', 'w')\nimport torch\nclass Net(torch.nn.Flatten): pass\n"


@pytest.mark.parametrize(
    "space",
    [
        "model.network: {choice: [evil.Net]}",
        "model.network: {choice: [TinyCNN, {class_path: evil.Net}]}",
        'model.network: {choice: [\'{"class_path": "evil.Net"}\']}',
        "model.network.class_path: {choice: [evil.Net]}",
        "trainer.callbacks: {choice: [[{class_path: evil.Net}]]}",
        "trainer.callbacks+: {choice: [evil.Net]}",
        "model.optimizer: {choice: [Adam, evil.Net]}",
    ],
)
def test_a_space_cannot_add_classes(command: Command, tmp_path: Path, space: str) -> None:
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "space.yaml").write_text(space)
    result = command(*SHORT_SWEEP)
    assert (result.status, "evil.Net" in result.err) == (2, True)
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "lightning_logs").exists()


@pytest.mark.parametrize("option", ["model.network", "model.lr_scheduler", "model.optimizer"])
def test_the_help_of_a_class_is_not_an_option_of_a_space(
    command: Command, tmp_path: Path, option: str
) -> None:
    """The parser imports the class whose help is requested."""
    (tmp_path / "space.yaml").write_text(f"{option}.help: {{choice: [this.s]}}")
    result = command(*SHORT_SWEEP)
    assert result.status == 2
    assert f"unknown option {option}.help" in result.err
    assert "this" not in sys.modules


def test_a_space_may_use_the_classes_of_the_command(command: Command, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from mnist_lightning.networks.tiny_cnn import TinyCNN\nclass Own(TinyCNN): pass\n"
    )
    (tmp_path / "space.yaml").write_text("model.network: {choice: [own.Own]}")
    for consent in (["--model.network", "own.Own"], ["--trust"]):
        result = command(*SHORT_SWEEP, *consent, "--name", consent[0].strip("-"))
        assert result.status == 0, result.err


@pytest.mark.parametrize(
    ("space", "named"),
    [
        ("trainer.logger: {choice: [true]}", "trainer.logger"),
        ("trainer.default_root_dir: {choice: [/tmp/elsewhere]}", "trainer.default_root_dir"),
        ("data.data_dir: {choice: [/tmp/elsewhere]}", "data.data_dir"),
        ("trainer.devices: {choice: [2]}", "trainer.devices"),
        ("trust: {choice: [true]}", "trust"),
        ("model: {choice: [{network: {class_path: evil.Net}}]}", "unknown option model"),
        ("'model.network=evil.Net --x': {choice: [1]}", "is not the name"),
        ("trainer.callbacks: {choice: [[ModelCheckpoint]]}", "ModelCheckpoint"),
    ],
)
def test_a_space_cannot_change_paths_or_devices(
    command: Command, tmp_path: Path, space: str, named: str
) -> None:
    (tmp_path / "space.yaml").write_text(space)
    result = command(*SHORT_SWEEP)
    assert (result.status, named in result.err) == (2, True), result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["space.yaml"]


def test_the_log_of_a_trial_must_not_be_a_link(command: Command, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("data.batch_size: {choice: [32]}\n")
    folder = tmp_path / "lightning_logs" / "sweeps" / "space"
    folder.mkdir(parents=True)
    precious = tmp_path / ".bashrc"
    precious.write_text("alias ls=ls\n")
    (folder / "trial_0.log").symlink_to(precious)
    result = command(*SHORT_SWEEP)
    assert result.status == 1
    assert "trial_0.log is a symbolic link, which may lead out of" in result.err
    assert precious.read_text() == "alias ls=ls\n"


@pytest.mark.parametrize("command_line", [SHORT_SWEEP, ["fit", *SHORT, "--run_dir", "out"]])
def test_no_file_is_created_through_a_link(
    command: Command, tmp_path: Path, command_line: list[str]
) -> None:
    (tmp_path / "space.yaml").write_text("data.batch_size: {choice: [32]}")
    for folder in ("out/checkpoints", "lightning_logs/sweeps/space"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f".{os.getpid()}.tmp").symlink_to(tmp_path / "made")
    command(*command_line)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("link", ["lightning_logs/sweeps", "lightning_logs/sweeps/space"])
def test_a_sweep_s_folder_must_not_be_a_link(command: Command, tmp_path: Path, link: str) -> None:
    (tmp_path / "space.yaml").write_text("data.batch_size: {choice: [32]}")
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / link).parent.mkdir(parents=True)
    (tmp_path / link).symlink_to(outside)
    result = command(*SHORT_SWEEP)
    assert (result.status, "is a symbolic link, which may lead out of" in result.err) == (1, True)
    assert not list(outside.iterdir())


def test_another_program_with_the_run_as_argument_is_not_its_process(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for more, found in ([], False), (["mnist_lightning"], True):
        command = [sys.executable, "-c", "input()", *more, str(tmp_path)]
        with child_process(command, stdin=subprocess.PIPE) as process:
            pids = {each.pid for each in processes_of(run)}
            process.communicate("\n")
        assert (process.pid in pids) == found
