"""fit, resume, validate and test, as typed."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_lightning import networks
from mnist_lightning.callbacks.predictions import Predictions
from mnist_lightning.runs import Run
from tests.conftest import DIGITS, Command


def accuracy(printed: str) -> str:
    found = re.search(r"test accuracy +│ ([\d.]+ %)", printed)
    assert found, printed
    return found[1]


def assert_equal(left: object, right: object, where: str = "checkpoint") -> None:
    """Equal at tolerance 0, whatever the nesting."""
    if isinstance(left, torch.Tensor):
        assert isinstance(right, torch.Tensor) and torch.equal(left, right), where
    elif isinstance(left, dict):
        assert isinstance(right, dict) and left.keys() == right.keys(), where
        for key in left:
            assert_equal(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, list | tuple):
        assert isinstance(right, list | tuple) and len(left) == len(right), where
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_equal(one, other, f"{where}[{index}]")
    else:
        assert left == right, where


def load(path: Path) -> dict[str, object]:
    loaded: dict[str, object] = torch.load(path, weights_only=True)
    return loaded


def logged(run: Run) -> list[tuple[int, str, str]]:
    """Each (step, tag, value) of training and validation in metrics.csv, as TensorBoard has it."""
    with (run.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = sorted(
        (int(row["step"]), tag, value)
        for row in rows
        for tag, value in row.items()
        if value and tag not in ("step", "dataset") and not tag.startswith("test/")
    )
    events = EventAccumulator(str(run.folder)).Reload()
    scalars = [
        (event.step, tag, event.value)
        for tag in events.Tags()["scalars"]
        for event in events.Scalars(tag)
        if not tag.startswith("test/")
    ]
    assert sorted((step, tag, f"{value:.6g}") for step, tag, value in scalars) == sorted(
        (step, tag, f"{float(value):.6g}") for step, tag, value in table
    )
    return table


def test_fit_trains_and_leaves_a_whole_run(command: Command, run_0: Run) -> None:
    result = command("fit", *DIGITS)
    assert result.status == 0, result.err
    assert result.err == ""
    assert len(re.findall(r"^epoch +\d+/10 ", result.out, re.MULTILINE)) == 10
    for word in ("of 297", "tensorboard --logdir", "resume 0", "best.ckpt", "predictions.csv"):
        assert word in result.out, word

    summary = run_0.summary()
    assert summary["state"] == "finished"
    assert summary["dataset"] == "digits"
    assert summary["test/total"] == 297
    assert summary["test/accuracy"] > 0.85
    assert f"{100 * summary['test/accuracy']:.2f} %" == accuracy(result.out)

    with run_0.predictions.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(297))
    assert sum(row["true"] == row["predicted"] for row in rows) == summary["test/correct"]
    assert sum(float(rows[0][f"p{digit}"]) for digit in range(10)) == pytest.approx(1, abs=1e-5)

    kept = sorted(path.name for path in run_0.checkpoints.iterdir())
    assert kept == ["best.ckpt", "last-1.ckpt", "last-2.ckpt", "last.ckpt"]
    assert "state_dict" in load(run_0.best)


def test_test_prints_the_accuracy_of_the_closing_table(command: Command) -> None:
    fitted = command("fit", *DIGITS, "--trainer.max_epochs", "3")
    tested = command("test", "best")
    assert tested.status == 0
    assert accuracy(tested.out) == accuracy(fitted.out)


def test_test_of_another_checkpoint_leaves_the_run_s_predictions(
    command: Command, run_0: Run
) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "2")
    before = run_0.predictions.read_bytes()
    for arguments in (
        [str(run_0.recent(1))],
        ["0", "--trainer.limit_test_batches", "1", "--data.eval_batch_size", "50"],
    ):
        result = command("test", *arguments)
        assert result.status == 0
        assert run_0.predictions.read_bytes() == before
    assert "of 50" in result.out


def test_config_yaml_makes_the_same_run_again(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "2", "--model.optimizer", "SGD")
    again = command("fit", "--config", str(run_0.config))
    assert again.status == 0, again.err
    run_1 = Run(run_0.folder.with_name("version_1"))
    assert_equal(load(run_0.best), load(run_1.best))
    text = run_0.config.read_text()
    assert "version_" not in text
    assert "ckpt" not in text
    config = yaml.safe_load(text)
    assert config["model"]["network"]["init_args"] == {"num_classes": 10, "dropout": 0.5}


@pytest.mark.parametrize(
    "schedule",
    [
        ["--data.num_workers", "2"],
        ["--model.lr_scheduler", "StepLR", "--model.lr_scheduler.step_size", "2"],
        ["--model.lr_scheduler", "ReduceLROnPlateau", "--model.lr_scheduler.patience", "0"],
        ["--model.optimizer", "SGD", "--model.optimizer.lr", "0.1", "--data.val_size", "0"],
    ],
    ids=lambda options: options[1],
)
def test_a_run_that_was_cut_short_and_resumed_ends_with_the_same_bits(
    command: Command, run_0: Run, schedule: list[str]
) -> None:
    whole = command("fit", *DIGITS, *schedule, "--trainer.max_epochs", "5")
    assert whole.status == 0, whole.err
    uninterrupted = load(run_0.recent())
    best = load(run_0.best)
    figures = logged(run_0)
    shutil.rmtree(run_0.folder)

    command("fit", *DIGITS, *schedule, "--trainer.max_epochs", "3")
    resumed = command("resume", "--trainer.max_epochs", "5")
    assert resumed.status == 0, resumed.err
    assert "after epoch 3" in resumed.out
    assert_equal(load(run_0.recent()), uninterrupted)
    assert_equal(load(run_0.best), best)
    assert accuracy(resumed.out) == accuracy(whole.out)
    assert logged(run_0) == figures


def test_fit_with_a_checkpoint_goes_on_in_the_same_folder(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    result = command(
        "fit", "--ckpt_path", str(run_0.recent()), *DIGITS, "--trainer.max_epochs", "2"
    )
    assert result.status == 0, result.err
    assert run_0.summary()["epochs"] == 2
    assert [run_0.folder] == list(run_0.folder.parent.iterdir())


def test_what_changes_the_training_is_refused_on_resume(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    before = run_0.recent().read_bytes()
    result = command("resume", "--model.optimizer.lr", "0.1", "--trainer.max_epochs", "2")
    assert result.status == 2
    assert "--model.optimizer.init_args.lr is 0.1 here, 0.001 in the checkpoint" in result.err
    assert run_0.recent().read_bytes() == before


def test_another_optimizer_on_resume_is_told_in_its_name_alone(command: Command) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    result = command("resume", "--model.optimizer", "SGD", "--trainer.max_epochs", "2")
    assert result.status == 2
    assert "--model.optimizer.class_path is torch.optim.SGD here, torch.optim.Adam in" in result.err
    assert "init_args" not in result.err


def test_a_run_comes_right_after_its_command(command: Command) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    result = command("test", "--data.eval_batch_size", "9", "0")
    assert result.status == 2
    assert "'0' is not an option; a RUN comes right after the command" in result.err


def test_last_says_which_newer_runs_have_no_checkpoint(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    shutil.copytree(run_0.folder, run_0.folder.with_name("version_1"))
    shutil.rmtree(run_0.folder.with_name("version_1") / "checkpoints")
    result = command("test", "last")
    assert result.status == 0
    assert "version_1 ended before a checkpoint: taking version_0" in result.out


def test_a_schedule_over_the_whole_run_cannot_be_stretched(command: Command) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1", "--model.lr_scheduler", "OneCycle")
    result = command("resume", "--trainer.max_epochs", "2")
    assert result.status == 2
    assert "--trainer.max_epochs is 2 here, 1 in the checkpoint" in result.err


def test_resume_on_other_data_is_refused(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    checkpoint = load(run_0.recent())
    data = checkpoint["MNISTDataModule"]
    assert isinstance(data, dict)
    data["checksum"] = "0" * 64
    torch.save(checkpoint, run_0.recent())
    result = command("resume", "--trainer.max_epochs", "2")
    assert result.status == 1
    assert "trained on other data: checksum 0000" in result.err


def test_resume_of_a_finished_run_says_how_to_go_on(command: Command) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    result = command("resume")
    assert result.status == 0
    assert "is finished: 1 of 1 epochs" in result.out
    assert "resume 0 --trainer.max_epochs 2" in result.out


def test_resume_falls_back_to_the_newest_whole_checkpoint(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "3")
    content = bytearray(run_0.recent().read_bytes())
    content[1000] ^= 1
    run_0.recent().write_bytes(content)
    result = command("resume", "--trainer.max_epochs", "4")
    assert result.status == 0
    assert "last.ckpt is damaged: it does not match its digest; going back" in result.out
    assert "after epoch 2" in result.out


def test_validate_shows_the_best_checkpoint_s_figure(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "2")
    result = command("validate")
    expected = run_0.summary()["val/accuracy"]
    assert f"{100 * expected:.2f} %" in result.out
    assert "of 200" in result.out


def test_without_validation_the_best_is_the_last_and_it_says_so(
    command: Command, run_0: Run
) -> None:
    result = command("fit", *DIGITS, "--data.val_size", "0", "--trainer.max_epochs", "2")
    assert "nothing is held out (val_size 0): the best checkpoint will be the last" in result.out
    assert "1,500 images to train, 0 to validate" in result.out
    assert run_0.best.read_bytes() == run_0.recent().read_bytes()
    refused = command("validate", "0")
    assert refused.status == 1
    assert "held no images out" in refused.err


def test_fast_dev_run_keeps_nothing(command: Command, tmp_path: Path) -> None:
    result = command("fit", *DIGITS, "--trainer.fast_dev_run", "true")
    assert result.status == 0, result.err
    assert list(tmp_path.iterdir()) == []


def test_a_limit_of_1_is_one_batch(command: Command, run_0: Run) -> None:
    arguments = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
    assert command("fit", *DIGITS, *arguments).status == 0
    assert load(run_0.recent())["global_step"] == 1


def test_a_run_without_checkpoints_tests_its_last_weights(command: Command, run_0: Run) -> None:
    arguments = ["--trainer.max_epochs", "1", "--trainer.enable_checkpointing", "false"]
    result = command("fit", *DIGITS, *arguments)
    assert result.status == 0, result.err
    assert list(run_0.checkpoints.iterdir()) == []
    assert run_0.summary()["test/total"] == 297


def test_auto_without_mnist_says_so_and_trains_on_the_embedded_digits(
    command: Command, run_0: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(data_dir: Path) -> None:
        raise FetchError("MNIST could not be downloaded; tried https://a/ (no connection)")

    from mnist_lightning.data import sources
    from mnist_lightning.data.mnist import FetchError

    source = sources.SOURCES["mnist"]
    monkeypatch.setitem(
        sources.SOURCES, "mnist", type(source)(source.description, 5000, source.load, no_network)
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
    assert "no run on mnist in lightning_logs: taking the best of those on digits" in best.out


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
def test_the_summary_tells_the_figures_of_the_best_checkpoint(
    command: Command, run_0: Run, options: list[str]
) -> None:
    limit = [] if "--trainer.max_steps" in options else ["--trainer.max_epochs", "3"]
    result = command("fit", *DIGITS, *limit, *options)
    assert result.status == 0, result.err
    assert result.err == ""
    summary = run_0.summary()
    assert summary["state"] == "finished"
    if summary["val/accuracy"] is not None:
        assert f"{100 * summary['val/accuracy']:.2f} %" in command("validate", "0").out
    # A validation within the epoch says nothing of the weights at its end.
    unjudged = {"--trainer.limit_val_batches", "--trainer.val_check_interval"} & set(options)
    assert (summary["val/accuracy"] is None) == bool(unjudged)
    assert ("test/accuracy" in summary) != ("--trainer.limit_test_batches" in options)
    assert run_0.predictions.exists() == ("test/accuracy" in summary)
    with (run_0.folder / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps))
    resumed = command("resume", "--trainer.max_epochs", "4", "--trainer.max_steps", "-1")
    if "--trainer.max_steps" in options:
        assert resumed.status == 2
    else:
        assert resumed.status == 0, resumed.err
        assert run_0.summary()["epochs"] == 4


def test_a_run_killed_before_its_test_is_tested_on_resume(
    command: Command, run_0: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Predictions, "on_test_batch_end", killed)
        assert command("fit", *DIGITS, "--trainer.max_epochs", "2").status == 1
    assert run_0.summary()["state"] == "failed"
    result = command("resume")
    assert result.status == 0, result.err
    summary = run_0.summary()
    assert (summary["state"], summary["epochs"], summary["test/total"]) == ("finished", 2, 297)


def test_an_extended_run_is_what_its_config_says(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    command("resume", "--trainer.max_epochs", "3")
    assert yaml.safe_load(run_0.config.read_text())["trainer"]["max_epochs"] == 3
    behind = command("resume", "--trainer.max_epochs", "2")
    assert behind.status == 0
    assert "is finished: 3 of 3 epochs" in behind.out


def test_only_one_process_trains_in_a_folder(command: Command, run_0: Run) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    before = run_0.recent().read_bytes()
    with FileLock(run_0.folder / ".lock"):
        result = command("resume", "--trainer.max_epochs", "2")
    assert result.status == 1
    assert "another process is training in lightning_logs/version_0" in result.err
    assert run_0.recent().read_bytes() == before


def test_a_checkpoint_from_elsewhere_goes_on_in_a_new_run(
    command: Command, run_0: Run, tmp_path: Path
) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "2", "--model.optimizer.lr", "0.01")
    loose = tmp_path / "loose.ckpt"
    shutil.copy(run_0.recent(), loose)
    result = command("resume", str(loose), "--trainer.max_epochs", "3")
    assert result.status == 0, result.err
    assert "loose.ckpt lies in no run's folder: going on in a new one" in result.out
    run_1 = Run(run_0.folder.with_name("version_1"))
    assert run_1.summary()["epochs"] == 3
    assert run_1.best.exists()
    assert run_0.summary()["epochs"] == 2


def test_somebody_s_own_network_trains_resumes_and_is_tested(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Mine(nn.Module):\n"
        "    def __init__(self, dropout: float = 0.1):\n"
        "        super().__init__()\n"
        "        self.dropout = nn.Dropout(dropout)\n"
        "        self.layer = nn.Linear(784, 10)\n"
        "    def forward(self, images):\n"
        "        return self.layer(self.dropout(images.flatten(1)))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    network = ["--model.network", "mine.Mine", "--model.network.dropout", "0.2"]
    assert command("fit", *DIGITS, *network, "--trainer.max_epochs", "1").status == 0
    assert command("resume", "--trainer.max_epochs", "2").status == 0
    assert command("test", "0").status == 0


def test_max_steps_alone_sets_the_length(command: Command, run_0: Run) -> None:
    assert command("fit", *DIGITS, "--trainer.max_steps", "150").status == 0
    assert load(run_0.recent())["global_step"] == 150


def test_log_lines_prints_the_loss_every_so_many_batches(command: Command) -> None:
    result = command("fit", *DIGITS, "--trainer.max_epochs", "1", "--log_lines", "5")
    lines = [line for line in result.out.splitlines() if "loss" in line][:2]
    assert re.fullmatch(r"epoch 1/1   500/1300 \( 38 %\)  loss \d\.\d{6}", lines[0])
    assert re.fullmatch(r"epoch 1/1  1000/1300 \( 77 %\)  loss \d\.\d{6}", lines[1])


MISTAKES = {
    "fit --data.batchsize 3": "there is no option --data.batchsize; "
    "did you mean --data.batch_size?",
    "fit --model.batch_size 3": "there is no option --model.batch_size; "
    "did you mean --data.batch_size?",
    "fit --data.batch_size x": "--data.batch_size: x will not do; it takes a whole number",
    "fit --data.batch_size 0": "batch_size is 0; it has to be at least 1",
    "fit --data.dataset mnits": "--data.dataset: mnits will not do; did you mean mnist?",
    "fit --model.network ClasicCNN": "--model.network: ClasicCNN will not do; "
    "did you mean ClassicCNN?",
    "fit --model.network subprocess.Popen": "--model.network: subprocess.Popen will not do;",
    "fit --model.network.dropuot 0.3": "--model.network: ClassicCNN has no argument 'dropuot'",
    "fit --model.optimizer Adamm": "--model.optimizer: Adamm will not do; did you mean Adam?",
    "fit --model.optimizer.rate 1": "--model.optimizer: optimizer has no argument 'rate'",
    "fit --model.lr_scheduler one_cycle": "--model.lr_scheduler: one_cycle will not do; "
    "did you mean OneCycle?",
    "fit --config nope.yaml": "there is no configuration file",
    "fit --config key.yaml": "the configuration has an unknown key data.batchsize; "
    "did you mean data.batch_size?",
    "fit --config broken.yaml": "Problems parsing config: while parsing a flow node",
    "fit --data.dataset digits --trainer.max_epochs 0": "there is nothing to train",
    "fit --data.dataset digits --model.optimizer.lr -1": "--model.optimizer: Invalid learning rate",
    "fit --data.dataset digits --model.network.num_classes 5": "the network gives (1, 5) for "
    "one image of digits, which has 10 classes",
    "fit --data.seed -1": "seed is -1; it has to be at least 0",
    "fit --data.dataset digits --trainer.overfit_batches 2": "--trainer.overfit_batches needs",
    "resume --ckpt_path=": "the RUN is empty",
    "fit best": "'best' is not an option; all options: python -m mnist_lightning fit --help",
    "fit --ckpt_path": "--ckpt_path needs a value",
    "fit --data.dataset digits --data.val_size 1500": "--data.val_size 1500 leaves nothing to "
    "train on: digits has 1,500 training images",
    "fit --data.dataset digits --trainer.max_epochs -5": "--trainer: `max_epochs` must be",
    "fit --data.dataset digits --trainer.devices 2": "a run is one process so far",
    "resume 7": "no run 7 in lightning_logs; there is none at all",
    "resume nope": "nope is no run: not `last`, not `best`, no folder and no checkpoint file",
    "fit --trainer.max_epoch 1": "there is no option --trainer.max_epoch; "
    "did you mean --trainer.max_epochs?",
    "data mnits": "no data set 'mnits'; did you mean mnist? there are: mnist, fashion_mnist",
    "data --fetch": "say which to fetch: python -m mnist_lightning data mnist --fetch",
    "data --x": "unrecognized arguments: --x",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_is_told_in_one_line_and_leaves_nothing_behind(
    command: Command, tmp_path: Path, typed: str
) -> None:
    (tmp_path / "key.yaml").write_text("data: {batchsize: 3}\n")
    (tmp_path / "broken.yaml").write_text("data: [\n")
    result = command(*typed.split())
    assert result.status == 2
    assert result.out == ""
    assert result.err.count("\n") == 1
    assert result.err.startswith(f"mnist-lightning: error: {MISTAKES[typed]}")
    assert not (tmp_path / "lightning_logs").exists()


def test_a_failure_at_work_ends_with_1(command: Command, tmp_path: Path) -> None:
    (tmp_path / "lightning_logs").write_text("a file")
    unwritable = command("fit", *DIGITS)
    assert unwritable.status == 1
    assert "cannot keep runs in lightning_logs: it is a file" in unwritable.err
    (tmp_path / "lightning_logs").unlink()

    nothing = command("test")
    assert nothing.status == 1
    assert "no run on mnist with a val/accuracy in lightning_logs" in nothing.err

    (tmp_path / "torn.ckpt").write_bytes(b"PK\x03\x04 torn")
    torn = command("test", "torn.ckpt")
    assert torn.status == 1
    assert "torn.ckpt is damaged, or no checkpoint at all" in torn.err


def test_debug_shows_the_traceback(command: Command) -> None:
    result = command("--debug", "test")
    assert result.status == 1
    assert "Traceback" in result.err


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
    assert summary["network"] == networks.describe(networks.ARCHITECTURES["ClassicCNN"]())
    assert {"torch", "lightning", "python"} <= summary["versions"].keys()
    assert summary["seed"] == 42
    assert len(summary["checksum"]) == 64
