"""The command fit: the files of a run, and its output."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from mnist_lightning.cli.verify import first_difference
from mnist_lightning.networks import registry
from mnist_lightning.runs.checkpoint import read_checkpoint
from mnist_lightning.runs.run_directory import Run
from tests.cli.checks import assert_equal, load_checkpoint, printed_accuracy
from tests.conftest import DIGITS, EPOCH_ROW, Command


def test_fit_trains_and_saves_a_complete_run(command: Command, run_0: Run) -> None:
    result = command("fit", *DIGITS)
    assert result.status == 0, result.err
    assert result.err == ""
    assert len(EPOCH_ROW.findall(result.out)) == 10
    for word in ("of 297", "tensorboard --logdir", "resume 0", "best.ckpt", "predictions.csv"):
        assert word in result.out, word

    summary = run_0.summary()
    assert summary["state"] == "finished"
    assert summary["dataset"] == "digits"
    assert summary["test/total"] == 297
    assert summary["test/accuracy"] > 0.85
    assert f"{100 * summary['test/accuracy']:.2f} %" == printed_accuracy(result.out)

    with run_0.predictions.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(297))
    assert sum(row["true"] == row["predicted"] for row in rows) == summary["test/correct"]
    assert sum(float(rows[0][f"p{digit}"]) for digit in range(10)) == pytest.approx(1, abs=1e-5)

    saved = sorted(path.name for path in run_0.checkpoints.iterdir())
    assert saved == ["best.ckpt", "last-1.ckpt", "last-2.ckpt", "last.ckpt"]
    assert "state_dict" in load_checkpoint(run_0.best)


def test_config_yaml_reproduces_the_run(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "2", "--model.optimizer", "SGD")
    again = command("fit", "--config", str(run_0.config))
    assert again.status == 0, again.err
    run_1 = Run(run_0.folder.with_name("version_1"))
    assert_equal(load_checkpoint(run_0.best), load_checkpoint(run_1.best))
    text = run_0.config.read_text()
    assert "version_" not in text
    assert "ckpt" not in text
    config = yaml.safe_load(text)
    assert config["model"]["network"]["init_args"] == {"num_classes": 10, "dropout": 0.5}


def test_without_validation_the_last_checkpoint_is_the_best(command: Command, run_0: Run) -> None:
    result = command("fit", *DIGITS, "--data.val_size", "0", "--trainer.max_epochs", "2")
    assert (
        "no validation set (val_size 0): the last checkpoint is saved as the best one" in result.out
    )
    assert "1,500 images to train, 0 to validate" in result.out
    assert run_0.best.read_bytes() == run_0.recent().read_bytes()
    refused = command("validate", "0")
    assert refused.status == 1
    assert "has no validation set (val_size 0)" in refused.err


def test_a_given_class_has_its_own_defaults(command: Command, run_0: Run) -> None:
    few = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
    command("fit", *DIGITS, *few, "--model.network=BatchNormCNN", "--model.optimizer=AdamW")
    model = run_0.read_config()["model"]
    assert model["network"]["init_args"] == {"num_classes": 10, "dropout": 0.3}  # not ClassicCNN's
    assert model["optimizer"]["init_args"]["weight_decay"] == 0.01  # not Adam's
    assert model["optimizer"]["init_args"]["fused"] is None


def test_fast_dev_run_saves_nothing(command: Command, tmp_path: Path) -> None:
    result = command("fit", *DIGITS, "--trainer.fast_dev_run", "true")
    assert result.status == 0, result.err
    assert list(tmp_path.iterdir()) == []


def test_a_limit_of_1_is_one_batch(command: Command, run_0: Run) -> None:
    arguments = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
    assert command("fit", *DIGITS, *arguments).status == 0
    assert load_checkpoint(run_0.recent())["global_step"] == 1


def test_a_run_without_checkpoints_tests_its_last_weights(command: Command, run_0: Run) -> None:
    arguments = ["--trainer.max_epochs", "1", "--trainer.enable_checkpointing", "false"]
    result = command("fit", *DIGITS, *arguments)
    assert result.status == 0, result.err
    assert list(run_0.checkpoints.iterdir()) == []
    assert run_0.summary()["test/total"] == 297


def test_auto_without_mnist_reports_it_and_trains_on_the_bundled_digits(
    command: Command, run_0: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(data_dir: Path) -> None:
        raise FetchError("MNIST could not be downloaded; tried https://a/ (no connection)")

    from mnist_lightning.data import datasets
    from mnist_lightning.data.mnist_download import FetchError

    source = datasets.SOURCES["mnist"]
    monkeypatch.setitem(
        datasets.SOURCES,
        "mnist",
        type(source)(source.description, source.val_share, source.load, no_network),
    )
    result = command("fit", "--trainer.max_epochs", "1")
    assert result.status == 0, result.err
    assert "This is not MNIST" in result.out
    assert "tried https://a/ (no connection)" in " ".join(result.out.replace("│", "").split())
    assert re.search(r"data set +│ digits", result.out)
    assert run_0.summary()["dataset"] == "digits"
    assert ",digits," in (run_0.folder / "metrics.csv").read_text()

    strict = command("fit", "--data.dataset", "mnist")
    assert strict.status == 1
    assert "no train-images-idx3-ubyte in data/MNIST/raw; MNIST could not be" in strict.err
    assert len(list(run_0.folder.parent.iterdir())) == 1

    best = command("test")
    assert best.status == 0
    assert "no run trained on mnist in lightning_logs: using the best run on digits" in best.err


@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.check_val_every_n_epoch", "2"],
        ["--trainer.val_check_interval", "0.4"],
        ["--trainer.limit_val_batches", "0"],
        ["--trainer.limit_test_batches", "0"],
        ["--trainer.max_steps", "30"],
        ["--trainer.accumulate_grad_batches", "4"],
        ["--trainer.precision", "bf16-mixed", "--trainer.gradient_clip_val", "1"],
    ],
    ids=lambda options: options[0],
)
def test_the_summary_has_the_metrics_of_the_best_checkpoint(
    command: Command, run_0: Run, options: list[str]
) -> None:
    limit = [] if "--trainer.max_steps" in options else ["--trainer.max_epochs", "3"]
    result = command("fit", *DIGITS, *limit, *options)
    assert result.status == 0, result.err
    assert result.err == ""
    summary = run_0.summary()
    assert summary["state"] == "finished"
    if "val/accuracy" in summary:
        assert f"{100 * summary['val/accuracy']:.2f} %" in command("validate", "0").out
    # A validation within an epoch does not measure the weights at its end.
    unmeasured = {"--trainer.limit_val_batches", "--trainer.val_check_interval"} & set(options)
    assert ("val/accuracy" not in summary) == bool(unmeasured)
    assert ("test/accuracy" in summary) != ("--trainer.limit_test_batches" in options)
    assert run_0.predictions.exists() == ("test/accuracy" in summary)
    with (run_0.folder / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps))
    resumed = command("resume", "--trainer.max_epochs", "4", "--trainer.max_steps", "-1")
    assert resumed.status == 0, resumed.err
    assert run_0.summary()["epochs"] == 4


def test_a_line_shows_the_loss_of_the_batch_also_when_gradients_are_accumulated(
    command: Command,
) -> None:
    options = ["--trainer.max_epochs", "1", "--log_lines", "1", "--model.optimizer.lr", "0"]
    losses = []
    for accumulated in ("1", "4"):
        result = command("fit", *DIGITS, *options, "--trainer.accumulate_grad_batches", accumulated)
        losses.append(re.findall(r"loss (\d\.\d{6})$", result.out, re.MULTILINE))
    assert len(losses[0]) == 13
    assert [float(x) for x in losses[0]] == pytest.approx([float(x) for x in losses[1]], abs=2e-6)


def test_max_steps_alone_sets_the_length(command: Command, run_0: Run) -> None:
    assert command("fit", *DIGITS, "--trainer.max_steps", "150").status == 0
    assert load_checkpoint(run_0.recent())["global_step"] == 150


def test_log_lines_prints_the_loss_every_so_many_batches(command: Command) -> None:
    result = command("fit", *DIGITS, "--trainer.max_epochs", "1", "--log_lines", "5")
    lines = [line for line in result.out.splitlines() if line.startswith("epoch")][:2]
    assert re.fullmatch(r"epoch 1/1   500/1300 \( 38 %\)  loss \d\.\d{6}", lines[0])
    assert re.fullmatch(r"epoch 1/1  1000/1300 \( 77 %\)  loss \d\.\d{6}", lines[1])


@pytest.mark.mnist
def test_all_ten_thousand_images_are_scored(command: Command, run_0: Run, mnist_dir: Path) -> None:
    result = command(
        "fit",
        *("--data.data_dir", str(mnist_dir)),
        *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "100"),
    )
    assert result.status == 0, result.err
    assert "55,000 images to train, 5,000 to validate, 10,000 to test" in result.out
    with run_0.predictions.open() as file:
        assert [int(row["index"]) for row in csv.DictReader(file)] == list(range(10_000))
    assert run_0.summary()["test/total"] == 10_000
    assert run_0.summary()["test/accuracy"] > 0.8


def test_summary_is_plain_json(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    summary = json.loads((run_0.folder / "summary.json").read_text())
    assert summary["parameters"] == 21_840
    assert summary["network"] == registry.describe(registry.ARCHITECTURES["ClassicCNN"]())
    assert {"torch", "lightning", "python"} <= summary["versions"].keys()
    assert summary["seed"] == 42
    assert len(summary["checksum"]) == 64


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.*")  # of torch's compiler
def test_the_checkpoint_of_a_compiled_run_is_like_any_other(command: Command, run_0: Run) -> None:
    network = ["--model.network", "MultilayerPerceptron"]
    result = command(
        "fit", *DIGITS, *network, "--model.compile", "true", "--trainer.max_steps", "2"
    )
    assert result.status == 0, result.err
    names = read_checkpoint(run_0.recent())["state_dict"]
    assert not any("_orig_mod" in name for name in names)
    assert command("test", "0").status == 0
    longer = ["--trainer.max_steps", "3", "--model.compile", "false"]
    assert command("resume", "0", *longer).status == 0
    assert read_checkpoint(run_0.recent())["global_step"] == 3


def test_compiling_without_a_compiler_is_refused(
    command: Command, run_0: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    result = command("fit", *DIGITS, "--model.compile", "true")
    assert result.status == 1
    assert "Not found: no-such-compiler. Install one" in result.err
    assert not run_0.folder.exists()


def test_augmented_training_is_reproducible_and_resumable(command: Command, run_0: Run) -> None:
    augment = ["--data.augment", "Deformation", "--data.augment.warp", "1"]
    assert command("fit", *DIGITS, *augment, "--trainer.max_epochs", "3").status == 0
    assert command("fit", *DIGITS, *augment, "--trainer.max_epochs", "1").status == 0
    assert command("resume", "1", "--trainer.max_epochs", "3").status == 0
    weights = [
        read_checkpoint(run.recent())["state_dict"]
        for run in (run_0, Run(run_0.folder.with_name("version_1")))
    ]
    assert first_difference("weights", *weights) is None
    plain = command("resume", "0", "--trainer.max_epochs", "4", "--data.augment", "null")
    assert "--data.augment" in plain.err


def test_a_gradient_that_is_not_a_number_is_reported_with_a_fix(command: Command) -> None:
    options = ("--trainer.detect_anomaly", "true", "--model.optimizer", "SGD")
    result = command("fit", *DIGITS, *options, "--model.optimizer.lr", "1e25")
    assert result.status == 1
    assert result.err.endswith(
        "error: a gradient is not a number; use a smaller --model.optimizer.lr\n"
    )
