"""Values that are valid YAML, but that a run cannot use or store."""

import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml
from PIL import Image, ImageDraw

from mnist_lightning.data.image_folder import load_folder
from mnist_lightning.networks.tiny_cnn import TinyCNN
from mnist_lightning.preprocessing import mnist_format
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
def test_a_value_that_cannot_be_stored_is_rejected_before_training(
    command: Command, tmp_path: Path, option: str
) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({option: OPTIONS[option]}))
    result = command(*FIT, "--config", "config.yaml")
    assert result.status == 2
    assert result.err.count("\n") == 1
    assert "looks like a bug" not in result.err
    assert not (tmp_path / "lightning_logs").exists()


def test_an_integer_with_more_digits_than_python_prints_is_refused(command: Command) -> None:
    result = command(*FIT, "--data.seed", "0x" + "f" * 5_000)
    assert result.status == 2
    assert "--data.seed exceeds 64 bits" in result.err


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("{a: " * 30 + "1" + "}" * 30, "nested more than 30 deep"),
        ("{" + "a" * 101 + ": 1}", "a key"),
    ],
)
def test_options_that_cannot_be_read_again_are_refused_before_training(
    command: Command, tmp_path: Path, options: str, problem: str
) -> None:
    (tmp_path / "own.py").write_text(
        "from mnist_lightning.networks.tiny_cnn import TinyCNN\n"
        "class Own(TinyCNN):\n"
        "    def __init__(self, options: dict) -> None:\n"
        "        super().__init__()\n"
        "        self.options = options\n"
    )
    network = ["--model.network", "own.Own", "--model.network.options"]
    result = command(*FIT, *network, options)
    assert (result.status, problem in result.err) == (2, True), result.err
    assert not (tmp_path / "lightning_logs").exists()
    assert command(*FIT, *network, "{a: {b: 1}}").status == 0


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


def test_a_schedule_with_exactly_the_steps_of_the_run_is_accepted(command: Command) -> None:
    one_cycle = ["--model.lr_scheduler", "OneCycle", "--model.lr_scheduler.total_steps", "2"]
    per_step = ["--model.lr_scheduler_interval", "step"]
    assert command(*FIT, *one_cycle, *per_step).status == 0


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
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"  # it contains that of the parent process
        "sys.exit(main(['runs', '0', '1']) or peak() - before > 2**20)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr


FAILING = {
    "model.optimizer": ("LBFGS", {"history_size": 0}, "--model.optimizer: pop from empty list"),
    "data.augment": ("Mixup", {"alpha": 1e308}, "--data.augment: value cannot be converted"),
}


@pytest.mark.parametrize("option", FAILING)
def test_an_argument_that_fails_in_training_is_reported_with_its_option(
    command: Command, tmp_path: Path, option: str
) -> None:
    name, arguments, message = FAILING[option]
    component: object = {"class_path": name, "init_args": arguments}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({option: component}))
    result = command(*FIT, "--config", "config.yaml", "--trainer.limit_train_batches", "4")
    assert result.status == 1
    assert message in result.err
    assert "looks like a bug" not in result.err
    assert "\x1b" not in result.err


def test_a_data_set_named_twice_is_refused(command: Command) -> None:
    result = command(*FIT, "--data.extra", "[strokes, strokes]")
    assert result.status == 2
    assert "--data.extra: a data set is given twice: strokes, strokes" in result.err


def test_a_huge_rotated_image_is_read_within_the_memory_of_two_copies(tmp_path: Path) -> None:
    image = Image.new("RGBA", (10_000, 10_000), "white")
    exif = image.getexif()
    exif[0x0112] = 6  # rotated by a quarter
    image.save(tmp_path / "huge.png", exif=exif, compress_level=1)
    script = (
        "import resource; from mnist_lightning.preprocessing import mnist_format\n"
        "from pathlib import Path\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: mnist_format.from_image(mnist_format.read(Path('huge.png')))\n"
        "except ValueError as error: assert 'contrast' in str(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1_000_000  # kB; two copies of 400 MB


def test_links_to_one_image_are_read_once(tmp_path: Path) -> None:
    picture = Image.new("L", (60, 60), 255)
    ImageDraw.Draw(picture).line((30, 10, 30, 50), fill=0, width=5)
    (tmp_path / "1").mkdir()
    picture.save(tmp_path / "1" / "0.png")
    for number in range(1, 5):
        (tmp_path / "1" / f"{number}.png").symlink_to("0.png")
    with patch.object(mnist_format, "read_content", wraps=mnist_format.read_content) as read:
        data, _ = load_folder(tmp_path, test_share=0.0)
    assert len(data.train_labels) == 5
    assert read.call_count == 1
