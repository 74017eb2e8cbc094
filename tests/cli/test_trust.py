"""Files are data: a class in a checkpoint or a config.yaml is imported only with consent."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mnist_lightning.runs import signature
from mnist_lightning.runs.checkpoint import read_signed_checkpoint
from mnist_lightning.runs.run_directory import Run
from tests import processes
from tests.cli.checks import load
from tests.conftest import DIGITS, Command, Result, Train
from tests.strangers import from_elsewhere, unsign

pytestmark = pytest.mark.slow

FIT = ["fit", *DIGITS, "--trainer.max_epochs", "1", "--model.network", "MultilayerPerceptron"]
SHORT = ["--trainer.limit_train_batches", "2", "--dashboards", "none"]
NETWORK = """
from pathlib import Path
from mnist_lightning.networks.multilayer_perceptron import MultilayerPerceptron
Path({marker!r}).touch()
class Network(MultilayerPerceptron):
    pass
"""


def payload(marker: Path) -> dict[str, Any]:
    """Describe a layer; a parser that constructs it carelessly creates `marker`."""
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


def put(config: dict[str, Any], position: str, value: Any) -> None:
    """Set an option of a configuration by its dotted name."""
    *sections, name = position.split(".")
    for section in sections:
        config = config[section]
    config[name] = value


@pytest.fixture
def trained(trained_run: Train, run_0: Run) -> Run:
    """A run of this user."""
    trained_run(*FIT[1:], *SHORT)
    return run_0


@pytest.mark.parametrize("form", FORMS)
def test_no_string_or_mapping_in_a_file_becomes_an_object(
    command: Command, trained: Run, tmp_path: Path, form: str
) -> None:
    marker = tmp_path / "executed"
    path = tmp_path / "strange.ckpt"
    original = trained.read_config()
    for position in POSITIONS:
        value = FORMS[form](payload(marker))
        checkpoint: Any = load(trained.recent())
        put(checkpoint["config"], position, value)
        path.write_bytes(from_elsewhere(checkpoint))
        config = json.loads(json.dumps(original))
        put(config, position, value)
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
def test_a_name_that_starts_like_a_registered_one_is_not_registered(
    command: Command, trained: Run, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "strange.ckpt"
    for position in ("model.network", "model.optimizer", "data.augment", "trainer.callbacks"):
        checkpoint: Any = load(trained.recent())
        put(checkpoint["config"], position, {"class_path": name, "init_args": {}})
        path.write_bytes(from_elsewhere(checkpoint))
        result = command("resume", str(path), "--trainer.max_epochs", "2")
        assert result.status == 1
        assert f"{position} references the class" in result.err
        assert "or add --trust" in result.err


def run_command(folder: Path, *arguments: str, home: Path | None = None) -> Result:
    """Run a command in a process of its own, which can import modules of its directory."""
    printed = folder / "printed"
    printed.unlink(missing_ok=True)
    environment = {"XDG_CONFIG_HOME": str(home)} if home else {}
    status = processes.run(list(arguments), folder, environment=environment)
    return Result(status, printed.read_text(), printed.read_text())


def test_a_downloaded_run_directory_imports_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    assert run_command(tmp_path, *FIT, *SHORT).status == 0
    run = Run(tmp_path / "lightning_logs" / "version_0")
    (run.folder / "net.py").write_text(NETWORK.format(marker=str(marker)))
    name = "lightning_logs.version_0.net.Network"
    checkpoint: Any = load(run.recent())
    for config in (checkpoint["config"], run.read_config()):
        config["model"]["network"] = {"class_path": name, "init_args": {"num_classes": 10}}
        run.config.write_text(yaml.safe_dump(config))
    checkpoint["network"] = {"class_path": name, "init_args": {"num_classes": 10}}
    for path in (run.best, run.recent()):
        path.write_bytes(from_elsewhere(checkpoint))
    for arguments in (
        ["resume", "0"],
        ["report", "0"],
        ["export", "0", "--format", "pth"],
        ["predict", "x.png", "--run", "0"],
        [*FIT, *SHORT, "--auto_resume", "true"],
    ):
        result = run_command(tmp_path, *arguments)
        assert not marker.exists(), arguments
        assert "Traceback" not in result.err
    refused = run_command(tmp_path, "test", "0")
    assert refused.status == 1
    assert f"model.network references the class {name}" in refused.err
    assert run_command(tmp_path, "test", "0", "--trust").status == 0
    assert marker.exists()


@pytest.fixture
def own_network(tmp_path: Path) -> Path:
    """A directory with a network of the user's own, which creates a file when it is imported."""
    (tmp_path / "net.py").write_text(NETWORK.format(marker=str(tmp_path / "imported")))
    return tmp_path


OWN = ["--model.network", "net.Network"]


def test_a_run_of_a_user_s_own_network_needs_no_consent_where_it_was_made(
    own_network: Path,
) -> None:
    fit = ["fit", *DIGITS, "--trainer.max_epochs", "1", *SHORT, *OWN]
    assert run_command(own_network, *fit).status == 0
    for arguments in (["validate"], ["resume", "0", "--trainer.max_epochs", "2"]):
        result = run_command(own_network, *arguments)
        assert result.status == 0, result.err
    again = run_command(
        own_network, *fit[:-2], *OWN, "--trainer.max_epochs", "2", "--auto_resume=true"
    )
    assert again.status == 0
    assert "version_0 is finished" in again.out

    elsewhere = own_network / "another user"
    for arguments, consent in (
        (["test"], ["--trust"]),
        (["resume", "0", "--trainer.max_epochs", "3"], OWN),
    ):
        (own_network / "imported").unlink(missing_ok=True)
        result = run_command(own_network, *arguments, home=elsewhere)
        assert result.status == 1
        assert "references the class net.Network, which needs your consent" in result.err
        assert not (own_network / "imported").exists()
        assert run_command(own_network, *arguments, *consent, home=elsewhere).status == 0


def test_a_signed_run_does_not_allow_another_module_of_the_same_name(own_network: Path) -> None:
    fit = ["fit", *DIGITS, "--trainer.max_epochs", "1", *SHORT, *OWN]
    assert run_command(own_network, *fit).status == 0
    folder = own_network / "downloaded"
    shutil.copytree(own_network / "lightning_logs", folder / "lightning_logs")
    marker = folder / "executed"
    (folder / "net.py").write_text(NETWORK.format(marker=str(marker)))
    for arguments in (["test"], ["resume", "0", "--trainer.max_epochs", "2"]):
        result = run_command(folder, *arguments)
        assert result.status == 1
        assert "you have not used classes of your own in this directory yet" in result.err
        assert not marker.exists()
    assert run_command(folder, "test", *OWN).status == 0
    assert marker.exists()
    assert run_command(folder, "test").status == 0  # from now on this directory is trusted


def test_no_module_of_the_working_directory_shadows_a_library(own_network: Path) -> None:
    marker = own_network / "executed"
    for name in ("yaml", "colorsys", "mailcap"):
        (own_network / f"{name}.py").write_text(NETWORK.format(marker=str(marker)))
    for name in ("net.Network", "mnist_lightning.networks.tiny_cnn.TinyCNN"):
        script = (
            "import sys; sys.path.remove('')\n"
            "from mnist_lightning.runs.imports import import_allowed\n"
            f"print(import_allowed({name!r}))\n"
            "import yaml, colorsys, mailcap"  # later, by whatever runs then
        )
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            cwd=own_network,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)},
            check=False,
        )
        assert done.returncode == 0
        assert not marker.exists()


HIDDEN = {
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


@pytest.mark.parametrize("way", HIDDEN)
def test_a_hidden_class_in_a_configuration_is_found(
    own_network: Path, command: Command, way: str
) -> None:
    network = "class_path: net.Network\n"
    (own_network / "network.yaml").write_text(network)
    (own_network / "model.yaml").write_text("network: {class_path: net.Network}\n")
    (own_network / "other.yaml").write_text("model: {network: {class_path: net.Network}}\n")
    (own_network / "own.yaml").write_text(HIDDEN[way])
    result = command("fit", *DIGITS, *SHORT, "--config", "own.yaml")
    assert result.status == 2
    assert any(
        reason in result.err
        for reason in ("references the class", "hides a structure", "is given twice", "a mapping")
    ), result.err
    assert not (own_network / "imported").exists()


def test_a_signature_is_invalid_for_any_other_content(own_network: Path) -> None:
    fit = ["fit", *DIGITS, "--trainer.max_epochs", "1", *SHORT]
    assert run_command(own_network, *fit).status == 0
    run = Run(own_network / "lightning_logs" / "version_0")
    text = run.config.read_text()
    default = "mnist_lightning.networks.classic_cnn.ClassicCNN"
    assert default in text
    run.config.write_text(text.replace(default, "net.Network"))
    result = run_command(own_network, "resume", "0", "--trainer.max_epochs", "2")
    assert result.status == 1
    assert "references the class net.Network" in result.err
    assert not (own_network / "imported").exists()


def test_the_user_s_own_config_file_also_needs_its_classes_named(own_network: Path) -> None:
    (own_network / "own.yaml").write_text("model: {network: {class_path: net.Network}}\n")
    fit = ["fit", *DIGITS, "--trainer.max_epochs", "1", *SHORT, "--config", "own.yaml"]
    refused = run_command(own_network, *fit)
    assert refused.status == 2
    assert "own.yaml references the class net.Network" in refused.err
    assert not (own_network / "imported").exists()
    assert not (own_network / "lightning_logs").exists()
    for consent in (OWN, ["--trust"]):
        assert run_command(own_network, *fit, *consent).status == 0


def test_a_run_without_a_directory_for_the_key_is_unsigned_and_reports_it(
    own_network: Path, tmp_path: Path
) -> None:
    blocked = tmp_path / "no folder"
    blocked.write_text("a file")
    fit = ["fit", *DIGITS, "--trainer.max_epochs", "1", *SHORT, *OWN]
    made = run_command(own_network, *fit, home=blocked)
    assert made.status == 0
    assert "This run is not signed" in made.out
    result = run_command(own_network, "test", "0", home=blocked)
    assert result.status == 1
    assert "references the class net.Network" in result.err


def test_the_key_is_readable_only_by_its_owner_and_made_once() -> None:
    first = signature.signing_key(create=True)
    assert first is not None
    assert signature.key_path().stat().st_mode & 0o077 == 0
    assert signature.signing_key(create=True) == first


def test_an_untrusted_run_controls_nothing_on_this_machine(
    command: Command, trained: Run, tmp_path: Path
) -> None:
    config = trained.read_config()
    config["trainer"]["default_root_dir"] = str(tmp_path / "outside")
    config["trainer"]["devices"] = 7
    config["trainer"]["strategy"] = "ddp"
    config["trainer"]["profiler"] = "simple"
    config["trainer"]["logger"] = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": str(tmp_path / "outside")},
    }
    config["data"]["num_workers"] = 3
    config["data"]["data_dir"] = str(tmp_path / "outside")
    trained.config.write_text(yaml.safe_dump(config))
    checkpoint = load(trained.recent())
    checkpoint["config"] = config
    trained.recent().write_bytes(from_elsewhere(checkpoint))
    assert command("resume", "0", "--trainer.max_epochs", "2").status == 0
    assert not (tmp_path / "outside").exists()
    kept = trained.read_config()
    assert (kept["trainer"]["devices"], kept["data"]["num_workers"]) == (1, 0)


def test_a_data_set_is_not_downloaded_to_a_path_from_an_untrusted_file(
    command: Command, trained: Run, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    checkpoint: Any = load(trained.best)
    checkpoint["config"]["data"] |= {"dataset": "mnist", "data_dir": str(outside)}
    trained.best.write_bytes(from_elsewhere(checkpoint))
    result = command("test", "0")
    assert result.status == 1
    assert "no train-images-idx3-ubyte in" in result.err
    assert list(outside.iterdir()) == []


def test_unsigned_runs_of_registered_classes_resume_as_before(
    command: Command, trained: Run
) -> None:
    unsign(trained)
    assert command("test", "0").status == 0
    result = command("resume", "0", "--trainer.max_epochs", "2")
    assert result.status == 0
    assert "This run is from elsewhere and is not signed" in result.out
    assert not read_signed_checkpoint(trained.recent())[1]
    assert not trained.read_signed_config()[1]
    # Only --trust makes it the user's own.
    assert command("resume", "0", "--trainer.max_epochs", "3", "--trust").status == 0
    assert trained.read_signed_config()[1]
    assert read_signed_checkpoint(trained.recent())[1]


def test_a_file_name_is_not_a_class(command: Command, tmp_path: Path) -> None:
    marker = tmp_path / "imported"
    for name in ("model", "weights"):
        (tmp_path / f"{name}.py").write_text(NETWORK.format(marker=str(marker)))
    callback = "{class_path: WeightsFile, init_args: {name: weights.pth}}"
    (tmp_path / "own.yaml").write_text(f"trainer: {{callbacks: [{callback}]}}\n")
    for options in (
        ["--config", "own.yaml"],
        ["--config", "own.yaml", "--trust"],
        ["--trainer.callbacks", "WeightsFile", "--trainer.callbacks.name", "weights.pth"],
        ["--trainer.callbacks", "WeightsFile"],  # its default name is model.pth
    ):
        assert command(*FIT, *SHORT, *options).status == 0
        assert command("test", "last").status == 0
        assert command("resume", "last", "--trainer.max_epochs", "2").status == 0
    assert not marker.exists()


@pytest.mark.parametrize("name", ["../../../out.pth", "/out.pth", "config.yaml", "x/../../y.pth"])
def test_the_weights_file_stays_in_the_run_directory(
    command: Command, trained: Run, name: str
) -> None:
    config = trained.read_config()
    path = "mnist_lightning.training.callbacks.state_dict_export.WeightsFile"
    config["trainer"]["callbacks"] = [{"class_path": path, "init_args": {"name": name}}]
    trained.config.write_text(yaml.safe_dump(config))
    checkpoint: Any = load(trained.recent())
    checkpoint["config"] = config
    trained.recent().write_bytes(from_elsewhere(checkpoint))
    result = command("resume", "0", "--trainer.max_epochs", "2")
    assert result.status != 0
    assert "expected a path inside the run directory, with the suffix .pth or .pt" in result.err


@pytest.mark.parametrize("link", ["checkpoints", "report", "export", "00000", "export/pth"])
def test_no_command_writes_through_a_link_in_a_run(
    command: Command, trained: Run, tmp_path: Path, link: str
) -> None:
    outside = tmp_path / "outside"
    if link == "checkpoints":
        trained.checkpoints.rename(outside)
    outside.mkdir(exist_ok=True)
    (outside / ".important.tmp").touch()
    (outside / "wedding.png").touch()
    place = trained.folder / link
    place.parent.mkdir(exist_ok=True)
    if place.is_dir():
        place.rename(tmp_path / "moved")
    place.symlink_to(outside)
    before = {path.name for path in outside.iterdir()}
    for arguments in (
        ["resume", "0", "--trainer.max_epochs", "2"],
        ["report", "0"],
        ["export", "0", "--format", "pth"],
    ):
        result = command(*arguments)
        assert result.status == 1
        assert "is a link out of" in result.err
    assert {path.name for path in outside.iterdir()} == before


def test_the_state_of_a_callback_moves_no_file_out_of_the_run(
    command: Command, tmp_path: Path, run_0: Run
) -> None:
    callback = ["--trainer.callbacks", "ModelCheckpoint", "--trainer.callbacks.monitor", "val/loss"]
    assert command(*FIT, *SHORT, *callback).status == 0
    precious = tmp_path / "precious.ckpt"
    precious.write_bytes(run_0.best.read_bytes())
    checkpoint: Any = load(run_0.recent())
    (key,) = [key for key in checkpoint["callbacks"] if key.startswith("ModelCheckpoint")]
    forged = {
        "best_k_models": {str(precious): torch.tensor(9.0)},
        "kth_best_model_path": str(precious),
        "best_model_path": str(precious),
        "dirpath": str(tmp_path / "outside"),
    }
    checkpoint["callbacks"][key] |= forged | {"kth_value": torch.tensor(9.0)}
    checkpoint["trainer"]["model_checkpoints"] = {key: forged}
    run_0.recent().write_bytes(from_elsewhere(checkpoint))
    command("resume", "0", "--trainer.max_epochs", "3")
    assert precious.exists()
    assert not (tmp_path / "outside").exists()
