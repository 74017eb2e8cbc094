"""The options of a fine-tuning: what is mixed in, which network, and for how long."""

import json
from pathlib import Path

import pytest
from torch import nn

from mnist_lightning.cli.main import main
from mnist_lightning.deployment.fine_tuning_options import (
    MAX_SHARE,
    STEPS,
    choose_rehearsal,
    network_options,
    plan_training,
)
from mnist_lightning.errors import UserError
from mnist_lightning.networks.batch_norm_cnn import BatchNormCNN
from mnist_lightning.networks.registry import remember_origin
from mnist_lightning.networks.tiny_cnn import TinyCNN
from mnist_lightning.runs.run_directory import PRETRAINED_FOLDER, Run
from tests.conftest import DIGITS, Command

PRETRAINED = Run(PRETRAINED_FOLDER)


def write_run(folder: Path, **facts: object) -> Run:
    folder.mkdir(exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(facts))
    return Run(folder)


def test_without_mnist_only_synthetic_digits_are_mixed_in_and_the_user_is_informed(
    tmp_path: Path,
) -> None:
    rehearsal = choose_rehearsal(PRETRAINED, tmp_path)
    assert (rehearsal.extra, rehearsal.held_out) == (("strokes",), "digits")
    assert rehearsal.note is not None
    assert f"data mnist --fetch --data.data_dir {tmp_path}" in rehearsal.note


@pytest.mark.mnist
def test_with_mnist_it_is_mixed_in(mnist_dir: Path) -> None:
    rehearsal = choose_rehearsal(PRETRAINED, mnist_dir)
    assert rehearsal == (("mnist", "strokes"), "mnist", mnist_dir, 0, None)


@pytest.mark.mnist
def test_a_damaged_mnist_is_reported(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"damaged")
    rehearsal = choose_rehearsal(PRETRAINED, tmp_path)
    assert rehearsal.held_out == "digits"
    assert "is damaged" in str(rehearsal.note)


def test_a_run_on_the_bundled_digits_rehearses_them_with_its_own_split(tmp_path: Path) -> None:
    run = write_run(tmp_path / "version_0", dataset="digits", split_seed=3)
    assert choose_rehearsal(run, tmp_path) == (
        *(("digits", "strokes"), "digits", tmp_path, 3, None),
    )


def test_a_fine_tuned_run_rehearses_what_was_mixed_in(tmp_path: Path) -> None:
    extras = {"digits": "abc", "strokes": "def"}
    run = write_run(tmp_path / "version_0", dataset="folder", extra_checksums=extras)
    rehearsal = choose_rehearsal(run, tmp_path)
    assert (rehearsal.extra, rehearsal.note) == (("digits", "strokes"), None)


def test_a_network_for_other_images_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "version_4", dataset="fashion_mnist")
    with pytest.raises(UserError, match="version_4 was trained on fashion_mnist, which are not"):
        choose_rehearsal(run, tmp_path)


def test_the_data_directory_of_an_own_run_is_used(command: Command, tmp_path: Path) -> None:
    few = ["--trainer.limit_train_batches", "1", "--trainer.max_epochs", "1"]
    assert main(["fit", *DIGITS, *few, "--data.data_dir", "elsewhere"]) == 0
    run = Run(Path("lightning_logs/version_0"))
    assert choose_rehearsal(run, None).data_dir == Path("elsewhere")
    config = run.config.read_text()
    run.config.write_text(config.replace("elsewhere", "other"))  # a run from another machine
    assert choose_rehearsal(run, None).data_dir == Path("data")


@pytest.mark.parametrize("dataset", ["mnist", "digits", "strokes"])
def test_few_digits_have_a_small_share_of_an_epoch(dataset: str) -> None:
    shares = [1 - plan_training([dataset], count).extra_share for count in (1, 5, 20, 100, 10_000)]
    assert shares == pytest.approx([0.06, 0.1, MAX_SHARE, MAX_SHARE, MAX_SHARE])


@pytest.mark.parametrize("dataset", ["mnist", "digits", "strokes"])
def test_all_data_sets_give_about_the_same_number_of_steps(dataset: str) -> None:
    plan = plan_training([dataset, "strokes"], 5)
    assert plan.epochs * plan.batches == pytest.approx(STEPS, abs=5)


def test_a_network_is_described_by_options() -> None:
    expected = ["--model.network=BatchNormCNN"]
    expected += ["--model.network.num_classes=10", "--model.network.dropout=0.25"]
    assert network_options(BatchNormCNN(dropout=0.25), None) == expected
    assert network_options(TinyCNN(), "own.Net")[0] == "--model.network=TinyCNN"


class Own(nn.Sequential):
    """A network that does not store its arguments."""


def test_a_network_of_the_user_has_the_name_from_the_command() -> None:
    network = Own()
    with pytest.raises(UserError, match="does not store its arguments"):
        network_options(network, None)
    remember_origin(network, Own, {"width": 3, "kind": "wide", "bias": None})
    expected = ["--model.network=own.Net", "--model.network.width=3"]
    expected += ["--model.network.kind=wide", "--model.network.bias=null"]
    assert network_options(network, "own.Net") == expected
