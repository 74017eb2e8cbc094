"""Signed runs: their classes need no consent where they were made."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from mnist_lightning.runs import signature
from mnist_lightning.runs.checkpoint import read_signed_checkpoint
from mnist_lightning.runs.run_directory import Run
from tests.cli.checks import load_checkpoint
from tests.cli.conftest import FIT, FIT_MLP, OWN_NETWORK, run_command, write_network
from tests.conftest import Command
from tests.unsigned_files import remove_signatures, unsigned_checkpoint

pytestmark = pytest.mark.slow


def test_a_downloaded_run_directory_imports_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    assert run_command(tmp_path, *FIT_MLP).status == 0
    run = Run(tmp_path / "lightning_logs" / "version_0")
    write_network(run.folder / "net.py", marker)
    name = "lightning_logs.version_0.net.Network"
    checkpoint: Any = load_checkpoint(run.recent())
    for config in (checkpoint["config"], run.read_config()):
        config["model"]["network"] = {"class_path": name, "init_args": {"num_classes": 10}}
        run.config.write_text(yaml.safe_dump(config))
    checkpoint["network"] = {"class_path": name, "init_args": {"num_classes": 10}}
    for path in (run.best, run.recent()):
        path.write_bytes(unsigned_checkpoint(checkpoint))
    for arguments in (
        ["resume", "0"],
        ["report", "0"],
        ["export", "0", "--format", "pth"],
        ["predict", "x.png", "--run", "0"],
        [*FIT_MLP, "--auto_resume", "true"],
    ):
        result = run_command(tmp_path, *arguments)
        assert not marker.exists(), arguments
        assert "Traceback" not in result.err
    refused = run_command(tmp_path, "test", "0")
    assert refused.status == 1
    assert f"model.network references the class {name}" in refused.err
    assert run_command(tmp_path, "test", "0", "--trust").status == 0
    assert marker.exists()


def test_a_run_of_a_user_s_own_network_needs_no_consent_where_it_was_made(
    own_network: Path,
) -> None:
    fit = [*FIT, *OWN_NETWORK]
    assert run_command(own_network, *fit).status == 0
    for arguments in (["validate"], ["resume", "0", "--trainer.max_epochs", "2"]):
        result = run_command(own_network, *arguments)
        assert result.status == 0, result.err
    again = run_command(own_network, *fit, "--trainer.max_epochs", "2", "--auto_resume=true")
    assert again.status == 0
    assert "version_0 is finished" in again.out

    elsewhere = own_network / "another user"
    for arguments, consent in (
        (["test"], ["--trust"]),
        (["resume", "0", "--trainer.max_epochs", "3"], OWN_NETWORK),
    ):
        (own_network / "imported").unlink(missing_ok=True)
        result = run_command(own_network, *arguments, home=elsewhere)
        assert result.status == 1
        assert "references the class net.Network, which needs your consent" in result.err
        assert not (own_network / "imported").exists()
        assert run_command(own_network, *arguments, *consent, home=elsewhere).status == 0


def test_a_signed_run_does_not_allow_another_module_of_the_same_name(own_network: Path) -> None:
    fit = [*FIT, *OWN_NETWORK]
    assert run_command(own_network, *fit).status == 0
    folder = own_network / "downloaded"
    shutil.copytree(own_network / "lightning_logs", folder / "lightning_logs")
    marker = folder / "executed"
    write_network(folder / "net.py", marker)
    for arguments in (["test"], ["resume", "0", "--trainer.max_epochs", "2"]):
        result = run_command(folder, *arguments)
        assert result.status == 1
        assert "in this directory no class of your own is allowed yet" in result.err
        assert not marker.exists()
    assert run_command(folder, "test", *OWN_NETWORK).status == 0
    assert marker.exists()
    assert run_command(folder, "test").status == 0  # from now on this directory is trusted


def test_a_signature_is_invalid_for_any_other_content(own_network: Path) -> None:
    assert run_command(own_network, *FIT).status == 0
    run = Run(own_network / "lightning_logs" / "version_0")
    text = run.config.read_text()
    default = "mnist_lightning.networks.classic_cnn.ClassicCNN"
    assert default in text
    run.config.write_text(text.replace(default, "net.Network"))
    result = run_command(own_network, "resume", "0", "--trainer.max_epochs", "2")
    assert result.status == 1
    assert "references the class net.Network" in result.err
    assert not (own_network / "imported").exists()


def test_a_run_without_a_directory_for_the_key_is_unsigned_and_reports_it(
    own_network: Path, tmp_path: Path
) -> None:
    blocked = tmp_path / "no folder"
    blocked.write_text("a file")
    fit = [*FIT, *OWN_NETWORK]
    fit_result = run_command(own_network, *fit, home=blocked)
    assert fit_result.status == 0
    assert "This run is not signed" in fit_result.out
    result = run_command(own_network, "test", "0", home=blocked)
    assert result.status == 1
    assert "references the class net.Network" in result.err


def test_the_key_is_readable_only_by_its_owner_and_made_once() -> None:
    first = signature.signing_key(create=True)
    assert first is not None
    assert signature.key_path().stat().st_mode & 0o077 == 0
    assert signature.signing_key(create=True) == first


def test_unsigned_runs_of_registered_classes_resume_as_before(
    command: Command, trained: Run
) -> None:
    remove_signatures(trained)
    assert command("test", "0").status == 0
    result = command("resume", "0", "--trainer.max_epochs", "2")
    assert result.status == 0
    assert "This run is from elsewhere and is not signed" in result.out
    assert not read_signed_checkpoint(trained.recent())[1]
    assert not trained.read_signed_config()[1]
    # Only --trust signs it.
    assert command("resume", "0", "--trainer.max_epochs", "3", "--trust").status == 0
    assert trained.read_signed_config()[1]
    assert read_signed_checkpoint(trained.recent())[1]
