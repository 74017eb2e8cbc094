"""The content of a run's event files, read back by TensorBoard's own reader."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from mnist_lightning import load
from mnist_lightning.cli.verify import first_difference
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.data.splits import split
from mnist_lightning.evaluation.image_grid import GAP
from mnist_lightning.networks.calibration import fit_temperature
from mnist_lightning.preprocessing.normalization import normalize
from mnist_lightning.runs.checkpoint import read_checkpoint
from mnist_lightning.runs.run_directory import Run
from tests.conftest import DIGITS, Command

SCALARS = {
    "images_per_second", "learning_rate", "train/step_loss",
    "train/loss", "train/accuracy", "val/loss", "val/accuracy", "test/loss", "test/accuracy",
}  # fmt: skip
PICTURES = {
    "samples/train",
    "filters/first layer",
    "mistakes/val",
    "mistakes/test",
    "confusion/test",
}
FINAL = {"final/val_accuracy", "final/val_loss", "final/fit_seconds"}
CURVES = {f"precision and recall, test/{digit}" for digit in range(10)}
LAYERS = ("features.0", "features.3", "head.1", "head.4")
SHORT = ["--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "5"]


def events(run: Run) -> EventAccumulator:
    return EventAccumulator(str(run.folder), size_guidance={"images": 0, "tensors": 0}).Reload()


def hparams(board: EventAccumulator) -> dict[str, plugin_data_pb2.HParamsPluginData]:
    """Return the records of the hyperparameters by tag."""
    contents = board.PluginTagToContent("hparams")
    return {
        tag: plugin_data_pb2.HParamsPluginData.FromString(content)
        for tag, content in contents.items()
    }


def test_each_documented_tag_exists_and_steps_increase(command: Command, run_0: Run) -> None:
    assert command("fit", *DIGITS, *SHORT, "--data.augment", "Deformation").status == 0
    board = events(run_0)
    tags = board.Tags()
    assert set(tags["scalars"]) == SCALARS | FINAL
    assert set(tags["images"]) == PICTURES | {"samples/augmented"}
    assert set(tags["tensors"]) >= CURVES | {"custom_scalars__config__", "dataset/text_summary"}
    assert tags["graph"]
    assert tags["histograms"] == []
    for tag in tags["scalars"]:
        steps = [event.step for event in board.Scalars(tag)]
        assert steps == sorted(set(steps)), tag
    for tag, count in (("images_per_second", 2), ("val/loss", 2), ("test/loss", 1)):
        assert len(board.Scalars(tag)) == count
    for tag in ("filters/first layer", "mistakes/val"):
        assert [event.step for event in board.Images(tag)] == [13, 26]
    assert all(event.value > 0 for event in board.Scalars("images_per_second"))


def test_full_adds_slower_dashboards_and_none_has_only_curves(command: Command) -> None:
    for level in ("full", "none"):
        assert command("fit", *DIGITS, *SHORT, "--dashboards", level).status == 0
    full, none = (events(Run(Path(f"lightning_logs/version_{n}"))).Tags() for n in (0, 1))
    kinds = {
        f"{kind}/{layer}.{part}"
        for kind in ("weights", "gradients")
        for layer in LAYERS
        for part in ("weight", "bias")
    }
    assert set(full["histograms"]) == kinds
    assert set(full["images"]) == PICTURES | {"confusion/val"}
    assert {f"precision and recall, val/{digit}" for digit in range(10)} < set(full["tensors"])
    assert none["images"] == none["histograms"] == []
    assert none["tensors"] == ["dataset/text_summary"]
    assert not none["graph"]
    assert set(none["scalars"]) == SCALARS - {"images_per_second"}


def test_dashboards_do_not_change_the_weights(command: Command) -> None:
    states = []
    for number, level in enumerate(("none", "basic", "full")):
        assert command("fit", *DIGITS, *SHORT, "--dashboards", level).status == 0
        checkpoint = read_checkpoint(Run(Path(f"lightning_logs/version_{number}")).recent())
        del checkpoint["config"]
        states.append(checkpoint)
    assert first_difference("last.ckpt", states[0], states[1]) is None
    assert first_difference("last.ckpt", states[0], states[2]) is None


def test_hyperparameters_are_short_and_differ_from_the_defaults(
    command: Command, run_0: Run
) -> None:
    options = ["--model.optimizer", "SGD", "--model.optimizer.lr", "0.05"]
    options += ["--model.optimizer.nesterov", "true", "--model.optimizer.momentum", "0.5"]
    options += ["--model.lr_scheduler", "OneCycle", "--model.network.dropout", "0.25"]
    options += ["--data.augment", "StrokeWidth", "--data.augment+", "Deformation"]
    options += ["--data.augment.degrees", "5"]
    assert command("fit", *DIGITS, *SHORT, *options).status == 0
    start = hparams(events(run_0))["_hparams_/session_start_info"].session_start_info.hparams
    values = {name: value.string_value or value.number_value for name, value in start.items()}
    assert values == {
        "seed": 42,
        "data.dataset": "digits",
        "data.batch_size": 100,
        "data.augment": "StrokeWidth, Deformation",
        "data.augment.Deformation.degrees": 5,
        "trainer.max_epochs": 2,
        "model.network": "ClassicCNN",
        "model.network.dropout": 0.25,
        "model.optimizer": "SGD",
        "model.optimizer.lr": 0.05,
        "model.optimizer.momentum": 0.5,
        "model.optimizer.nesterov": "true",
        "model.lr_scheduler": "OneCycle",
    }


def test_one_page_shows_training_and_validation_in_one_chart(command: Command, run_0: Run) -> None:
    assert command("fit", *DIGITS, *SHORT).status == 0
    content = events(run_0).Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    (category,) = layout_pb2.Layout.FromString(content).category
    charts = {chart.title: list(chart.multiline.tag) for chart in category.chart}
    assert charts == {
        "loss": ["train/loss", "val/loss"],
        "accuracy": ["train/accuracy", "val/accuracy"],
    }


def test_hyperparameters_have_the_final_metrics(command: Command, run_0: Run) -> None:
    assert command("fit", *DIGITS, *SHORT, "--model.optimizer.lr", "0.002").status == 0
    board, summary = events(run_0), run_0.summary()
    records = hparams(board)
    start = records["_hparams_/session_start_info"].session_start_info.hparams
    assert start["model.optimizer.lr"].number_value == 0.002
    assert start["seed"].number_value == 42
    assert start["model.network"].string_value == "ClassicCNN"
    assert "data.data_dir" not in start
    metrics = records["_hparams_/experiment"].experiment.metric_infos
    for name, expected in (
        ("test/accuracy", summary["test/accuracy"]),
        ("final/val_accuracy", summary["val/accuracy"]),
    ):
        assert name in {metric.name.tag for metric in metrics}
        assert board.Scalars(name)[-1].value == pytest.approx(expected)
    assert "hp_metric" not in board.Tags()["scalars"]


def test_a_resumed_run_has_each_image_once_and_its_last_metrics(
    command: Command, run_0: Run
) -> None:
    assert command("fit", *DIGITS, *SHORT).status == 0
    assert command("resume", "0", "--trainer.max_epochs", "4").status == 0
    board = events(run_0)
    assert [event.step for event in board.Images("mistakes/val")] == [13, 26, 39, 52]
    assert len(board.Images("samples/train")) == 1
    assert len(board.Tensors("dataset/text_summary")) == 1
    assert len(list(run_0.folder.rglob("tensors.tsv"))) == 1
    start = hparams(board)["_hparams_/session_start_info"].session_start_info.hparams
    assert start["trainer.max_epochs"].number_value == 4
    assert board.Scalars("test/accuracy")[-1].step == 52


def test_mistakes_are_shown_with_the_most_confident_first(command: Command, run_0: Run) -> None:
    assert command("fit", *DIGITS, *SHORT).status == 0
    encoded = events(run_0).Images("mistakes/test")[-1].encoded_image_string
    sheet = np.asarray(Image.open(io.BytesIO(encoded)).convert("L"))
    rows = run_0.predictions.read_text().splitlines()[1:]
    table = [[float(cell) for cell in row.split(",")] for row in rows]
    wrong = max((row for row in table if row[1] != row[2]), key=lambda row: max(row[3:]))
    image = SOURCES["digits"].load(Path()).test_images[int(wrong[0])].numpy()
    assert np.array_equal(sheet[GAP : GAP + 84 : 3, GAP : GAP + 84 : 3], 255 - image)


def test_the_projector_has_points_with_labels_and_images(command: Command, run_0: Run) -> None:
    assert command("fit", *DIGITS, *SHORT).status == 0
    config = (run_0.folder / "projector_config.pbtxt").read_text()
    (points,) = run_0.folder.rglob("tensors.tsv")
    labels = points.with_name("metadata.tsv").read_text().splitlines()
    assert str(points.relative_to(run_0.folder)) in config
    assert len(points.read_text().splitlines()) == len(labels) - 1 == 297
    assert len(points.read_text().splitlines()[0].split("\t")) == 50
    true, predicted = run_0.predictions.read_text().splitlines()[1].split(",")[1:3]
    assert labels[:2] == ["true\tpredicted", f"{true}\t{predicted}"]
    with Image.open(points.with_name("sprite.png")) as sprite:
        assert sprite.size == (18 * 28, 18 * 28)


@pytest.mark.parametrize("network", ["MultilayerPerceptron", "SpeedCNN", "DeepCNN"])
def test_every_network_has_filters_and_points(command: Command, run_0: Run, network: str) -> None:
    length = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    assert command("fit", *DIGITS, *length, "--model.network", network).status == 0
    tags = events(run_0).Tags()
    assert "filters/first layer" in tags["images"]
    assert tags["graph"]
    assert list(run_0.folder.rglob("tensors.tsv"))


def test_a_run_without_validation_has_dashboards(command: Command, run_0: Run) -> None:
    assert command("fit", *DIGITS, *SHORT, "--data.val_size", "0").status == 0
    tags = events(run_0).Tags()
    assert "mistakes/test" in tags["images"]
    assert "mistakes/val" not in tags["images"]
    assert "temperature" not in run_0.summary()


def test_the_temperature_is_fitted_on_the_validation_set(command: Command, run_0: Run) -> None:
    assert command("fit", *DIGITS, *SHORT).status == 0
    data = SOURCES["digits"].load(Path())
    val_indices = split(len(data.train_labels), 200, 0)[1]
    probabilities = load(run_0.folder).probabilities(normalize(data.train_images[val_indices]))
    expected = fit_temperature(probabilities.numpy(), data.train_labels[val_indices].numpy())
    assert run_0.summary()["temperature"] == pytest.approx(expected, rel=1e-4)


def test_the_speed_of_a_run_resumed_within_an_epoch_is_correct(
    command: Command, run_0: Run
) -> None:
    limited = [*DIGITS, "--trainer.max_steps", "20", "--trainer.max_epochs", "4"]
    assert command("fit", *limited).status == 0
    assert command("resume", "0", "--trainer.max_steps", "-1").status == 0
    speeds = [event.value for event in events(run_0).Scalars("images_per_second")]
    assert len(speeds) == 4
    assert min(speeds) > max(speeds) / 30
