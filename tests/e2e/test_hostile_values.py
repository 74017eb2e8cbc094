"""Values that are valid YAML, but that no run can use or store."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image, ImageDraw

from mnist_lightning.networks.tiny_cnn import TinyCNN
from tests.conftest import Command
from tests.e2e.conftest import FIT

HUGE = 10**25
OPTIONS = {
    "log_lines": HUGE,
    "data.batch_size": HUGE,
    "data.seed": HUGE,
    "data.eval_batch_size": HUGE,
    "trainer.accumulate_grad_batches": HUGE,
    "trainer.limit_train_batches": HUGE,
    "trainer.log_every_n_steps": HUGE,
    "trainer.max_epochs": HUGE,
    "trainer.num_nodes": 2**62,
    "trainer.devices": 2**62,
    "model.network.init_args.num_classes": 201,
    "data.data_dir": "a" * 10_001,
}


@pytest.mark.parametrize("option", OPTIONS)
def test_a_value_that_no_run_can_store_is_refused_before_training(
    command: Command, tmp_path: Path, option: str
) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({option: OPTIONS[option]}))
    result = command(*FIT, "--config", "config.yaml")
    assert result.status == 2
    assert result.err.count("\n") == 1
    assert "bug" not in result.err
    assert not (tmp_path / "lightning_logs").exists()


@pytest.mark.parametrize("schedule", ["StepLR.step_size", "CosineAnnealingLR.T_max"])
def test_a_schedule_that_fails_at_its_first_step_is_refused_before_training(
    command: Command, tmp_path: Path, schedule: str
) -> None:
    name, _, argument = schedule.partition(".")
    schedule_options = ["--model.lr_scheduler", name, f"--model.lr_scheduler.{argument}", "0"]
    result = command(*FIT, *schedule_options)
    assert result.status == 2
    assert "--model.lr_scheduler: integer modulo by zero" in result.err
    assert not (tmp_path / "lightning_logs").exists()


def test_a_network_with_a_million_classes_is_refused(command: Command, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    classes = 1_000_000
    arguments = {"num_classes": classes, "width": 1}
    path = "mnist_lightning.networks.tiny_cnn.TinyCNN"
    description = {"network": {"class_path": path, "init_args": arguments}, "temperature": 1.0}
    weights = {name: value.contiguous() for name, value in TinyCNN(classes, 1).state_dict().items()}
    metadata = {"mnist_lightning": json.dumps(description)}
    save_file(weights, tmp_path / "wide.safetensors", metadata)
    picture = Image.new("L", (60, 60), 255)
    ImageDraw.Draw(picture).line((30, 10, 30, 50), fill=0, width=5)
    picture.save(tmp_path / "one.png")
    result = command("predict", "one.png", "--run", "wide.safetensors")
    assert result.status == 1
    assert "1000000 classes; expected 2 to 200" in result.err


def test_long_names_around_a_long_text_are_compared_in_bounded_memory(tmp_path: Path) -> None:
    text = "a " * 140_000
    options = text
    for _ in range(45):
        options = [{"k" * 190: options}]  # type: ignore[assignment]
    for number in (0, 1):
        folder = tmp_path / "lightning_logs" / f"version_{number}"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "summary.json").write_text('{"seed": 1}')
        config = {"model": options, "trainer": {}, "seed_everything": 1}
        (folder / "config.yaml").write_text(yaml.safe_dump(config, default_flow_style=True))
    script = (
        "import resource, sys; from mnist_lightning.cli.main import main\n"
        "status = main(['runs', '0', '1'])\n"
        "sys.exit(status or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 2**20)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
