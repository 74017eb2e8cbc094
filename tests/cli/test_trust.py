"""A class in a checkpoint or a configuration is imported only with the user's consent."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mnist_lightning.runs.run_directory import Run
from tests.cli.checks import load_checkpoint
from tests.cli.conftest import FIT, FIT_MLP, OWN_NETWORK, SHORT, run_command, write_network
from tests.conftest import DIGITS, Command
from tests.unsigned_files import unsigned_checkpoint

pytestmark = pytest.mark.slow


def payload(marker: Path) -> dict[str, Any]:
    """Describe a layer that creates `marker` when a parser constructs it."""
    setup = f"open({str(marker)!r}, 'w')"
    timer = {"class_path": "timeit.Timer", "init_args": {"stmt": "pass", "setup": setup}}
    arguments = {"in_features": 784, "out_features": 10, "device": timer}
    return {"class_path": "torch.nn.Linear", "init_args": arguments}


# Where a configuration may contain a class, or a string that is parsed as one.
POSITIONS = [
    "model.network",
    "model.optimizer",
    "model.lr_scheduler",
    "model.lr_scheduler_interval",
    "model.label_smoothing",
    "data.augment",
    "data.dataset",
    "data.extra",
    "data.seed",
    "trainer.callbacks",
    "trainer.logger",
    "trainer.plugins",
    "trainer.strategy",
    "trainer.profiler",
    "trainer.accelerator",
    "trainer.precision",
    "trainer.max_time",
    "trainer.val_check_interval",
    "trainer.gradient_clip_algorithm",
    "trainer.model_registry",
    "seed_everything",
    "dashboards",
    "autosave",
    "config",
]
FORMS: dict[str, Callable[[Any], Any]] = {
    "JSON string": json.dumps,
    "YAML string": lambda spec: yaml.safe_dump(spec, default_flow_style=True),
    "string in a list": lambda spec: [json.dumps(spec)],
    "mapping": lambda spec: spec,
}


def set_option(config: dict[str, Any], position: str, value: Any) -> None:
    """Set an option of a configuration by its dotted name."""
    *sections, name = position.split(".")
    for section in sections:
        config = config[section]
    config[name] = value


@pytest.mark.parametrize("form", FORMS)
def test_no_string_or_mapping_in_a_file_becomes_an_object(
    command: Command, trained: Run, tmp_path: Path, form: str
) -> None:
    marker = tmp_path / "executed"
    path = tmp_path / "strange.ckpt"
    original = trained.read_config()
    for position in POSITIONS:
        value = FORMS[form](payload(marker))
        checkpoint: Any = load_checkpoint(trained.recent())
        set_option(checkpoint["config"], position, value)
        path.write_bytes(unsigned_checkpoint(checkpoint))
        config = json.loads(json.dumps(original))
        set_option(config, position, value)
        trained.config.write_text(yaml.safe_dump(config))
        for arguments in (
            ["test", str(path)],
            ["resume", str(path), "--trainer.max_epochs", "2", "--trust"],
            ["resume", "0", "--trainer.max_epochs", "2"],
        ):
            result = command(*arguments)
            assert not marker.exists(), (position, arguments)
            assert "Traceback" not in result.err
            assert "looks like a bug" not in result.err, (position, arguments, result.err)


@pytest.mark.parametrize(
    "name",
    [
        "mnist_lightning.networks.nn.Linear",
        "mnist_lightning.networks.classic_cnn.nn.Linear",
        "mnist_lightning.training.callbacks.run_summary.subprocess.Popen",
        "mnist_lightning.networks.classic_cnn.ClassicCNN.register_module",
        "mnist_lightning.data.augmentations.draw_non_digits",
        "torch.optim.Adam.__init__",
        "torch.optim.lr_scheduler.warnings",
        "torch.optim.swa_utils.AveragedModel",
        "torch.nn.Linear",
        "Linear",
        "subprocess.Popen",
        "",
        ".",
        "a..b",
    ],
)
def test_a_name_with_the_prefix_of_a_registered_class_is_not_trusted(
    command: Command, trained: Run, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "strange.ckpt"
    for position in ("model.network", "model.optimizer", "data.augment", "trainer.callbacks"):
        checkpoint: Any = load_checkpoint(trained.recent())
        set_option(checkpoint["config"], position, {"class_path": name, "init_args": {}})
        path.write_bytes(unsigned_checkpoint(checkpoint))
        result = command("resume", str(path), "--trainer.max_epochs", "2")
        assert result.status == 1
        assert f"{position} references the class" in result.err
        assert "or add --trust" in result.err


def test_no_module_of_the_working_directory_shadows_a_library(own_network: Path) -> None:
    marker = own_network / "executed"
    for name in ("yaml", "colorsys", "mailcap"):
        write_network(own_network / f"{name}.py", marker)
    for name in ("net.Network", "mnist_lightning.networks.tiny_cnn.TinyCNN"):
        script = (
            "import sys; sys.path.remove('')\n"
            "from mnist_lightning.runs.imports import import_allowed\n"
            f"print(import_allowed({name!r}))\n"
            "import yaml, colorsys, mailcap"  # a later import by other code
        )
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            cwd=own_network,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)},
            check=False,
        )
        assert done.returncode == 0
        assert not marker.exists()


HIDDEN_CLASSES = {
    "a JSON string": 'model: {network: \'{"class_path": "net.Network"}\'}',
    "a YAML string": "model:\n  network: |\n    class_path: net.Network\n    init_args: {}\n",
    "a string in a list": "trainer: {callbacks: ['{class_path: net.Network}']}",
    "an added item": "trainer.callbacks+: {class_path: net.Network}",
    "an added item in a section": "trainer: {callbacks+: [{class_path: net.Network}]}",
    "a dotted key": "model: {network.class_path: net.Network}",
    "a dotted key of the whole": "model.network.class_path: net.Network",
    "twice": "model: {network: {class_path: net.Network}}\nmodel.network: TinyCNN",
    "another file": "config: other.yaml",
    "another file for a section": "model: model.yaml",
    "another file for a class": "model: {network: ./network.yaml}",
    "an unknown option": "model: {net: {class_path: net.Network}}",
    "an argument": "model: {network: {class_path: TinyCNN, init_args: {x: '{class_path: a.B}'}}}",
}


@pytest.mark.parametrize("way", HIDDEN_CLASSES)
def test_a_hidden_class_in_a_configuration_is_found(
    own_network: Path, command: Command, way: str
) -> None:
    network = "class_path: net.Network\n"
    (own_network / "network.yaml").write_text(network)
    (own_network / "model.yaml").write_text("network: {class_path: net.Network}\n")
    (own_network / "other.yaml").write_text("model: {network: {class_path: net.Network}}\n")
    (own_network / "own.yaml").write_text(HIDDEN_CLASSES[way])
    result = command("fit", *DIGITS, *SHORT, "--config", "own.yaml")
    assert result.status == 2
    assert any(
        reason in result.err
        for reason in (
            "references the class",
            "in a string or in another file",
            "is given twice",
            "a mapping",
        )
    ), result.err
    assert not (own_network / "imported").exists()


def test_the_user_s_own_config_file_also_needs_its_classes_named(own_network: Path) -> None:
    (own_network / "own.yaml").write_text("model: {network: {class_path: net.Network}}\n")
    fit = [*FIT, "--config", "own.yaml"]
    refused = run_command(own_network, *fit)
    assert refused.status == 2
    assert "own.yaml references the class net.Network" in refused.err
    assert not (own_network / "imported").exists()
    assert not (own_network / "lightning_logs").exists()
    for consent in (OWN_NETWORK, ["--trust"]):
        assert run_command(own_network, *fit, *consent).status == 0


def test_a_file_name_is_not_a_class(command: Command, tmp_path: Path) -> None:
    marker = tmp_path / "imported"
    for name in ("model", "weights"):
        write_network(tmp_path / f"{name}.py", marker)
    callback = "{class_path: WeightsFile, init_args: {name: weights.pth}}"
    (tmp_path / "own.yaml").write_text(f"trainer: {{callbacks: [{callback}]}}\n")
    for options in (
        ["--config", "own.yaml"],
        ["--config", "own.yaml", "--trust"],
        ["--trainer.callbacks", "WeightsFile", "--trainer.callbacks.name", "weights.pth"],
        ["--trainer.callbacks", "WeightsFile"],  # its default name is model.pth
    ):
        assert command(*FIT_MLP, *options).status == 0
        assert command("test", "last").status == 0
        assert command("resume", "last", "--trainer.max_epochs", "2").status == 0
    assert not marker.exists()
