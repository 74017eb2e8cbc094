"""Comparisons of a network before and after fine-tuning."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.data.datasets import SOURCES, DigitData
from mnist_lightning.evaluation.forgetting import (
    MAX_SHOWN,
    NOT_A_DIGIT,
    HeldOutImages,
    compare,
    held_out_images,
    main,
    read_images,
    summarize,
)
from mnist_lightning.inference import Recognizer, load
from mnist_lightning.networks.calibration import Calibration
from mnist_lightning.preprocessing.normalization import normalize
from mnist_lightning.runs.run_directory import PRETRAINED_FOLDER, Run
from tests.conftest import Command
from tests.images import draw_seven

NOTHING = torch.zeros(0, 28, 28, dtype=torch.uint8)
DIGITS = SOURCES["digits"].load(Path())


class FirstPixels(nn.Module):
    """Reads the label that the first ten pixels of an image encode, or that plus a shift."""

    def __init__(self, shift: int = 0) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        return 5 * images[:, 0, 0, :10].roll(self.shift, dims=1)


def encode(labels: list[int]) -> Tensor:
    """Return images (N, 28, 28) whose first pixels encode labels."""
    images = torch.zeros(len(labels), 28, 28, dtype=torch.uint8)
    images[range(len(labels)), 0, labels] = 255
    return images


def own_data(read: list[int], true: list[int]) -> DigitData:
    empty = torch.zeros(0, dtype=torch.long)
    return DigitData("folder", encode(read), torch.tensor(true), NOTHING, empty)


def test_counts_tell_what_was_forgotten_and_what_was_learned() -> None:
    # Before, the reading is `read`; after, it is one more.
    own = own_data(read=[1, 2, 3], true=[2, 3, 3])
    held_out = HeldOutImages(encode([4, 5, 6, 7]), torch.tensor([4, 5, 7, 0]), True)
    before, after = Recognizer(FirstPixels()), Recognizer(FirstPixels(1))
    result = compare(before, after, own, held_out, "digits")
    assert {name: result["own"][name] for name in ("total", "before", "after")} == {
        **{"total": 3, "before": 1, "after": 2}
    }
    expected = {"total": 4, "before": 2, "after": 1, "forgotten": 2, "learned": 1}
    expected |= {"rejected_before": 0, "rejected_after": 0}
    assert result["held_out"] == {**expected, "dataset": "digits", "are_new": True}
    assert result["summary"] == (
        "Your digits: 1 of 3 correct before, 2 after. Correct more digits like the others, and "
        "learn again. 4 held-out images of digits: 50.00 % before, 25.00 % after. "
        "2 of them correct only before (forgotten), 1 only after."
    )


def test_misread_images_are_listed_first() -> None:
    own = own_data(read=[3, 1, 2, 4], true=[3, 2, 2, 5])
    nothing = HeldOutImages(NOTHING, torch.zeros(0, dtype=torch.long), True)
    before, after = Recognizer(FirstPixels()), Recognizer(FirstPixels(1))
    result = compare(before, after, own, nothing, "digits")
    shown = [(each["label"], each["before"], each["after"]) for each in result["own"]["shown"]]
    assert shown == [(2, 2, 3), (3, 3, 4), (2, 1, 2), (5, 4, 5)]
    assert result["own"]["shown"][0]["image"].startswith("data:image/png;base64,")
    assert result["summary"].startswith("Your digits: 2 of 4 correct before, 2 after. Correct more")


def test_few_of_many_images_are_listed() -> None:
    count = MAX_SHOWN + 5
    own = own_data(read=[1] * count, true=[1] * count)
    nothing = HeldOutImages(NOTHING, torch.zeros(0, dtype=torch.long), True)
    result = compare(Recognizer(FirstPixels()), Recognizer(FirstPixels()), own, nothing, "digits")
    assert (result["own"]["total"], len(result["own"]["shown"])) == (count, MAX_SHOWN)


def test_an_image_that_the_page_rejects_is_not_read_correctly() -> None:
    strict = Calibration(digit_slope=1.0, digit_offset=0.0, min_digit=0.99)
    images = torch.cat([encode([7]), NOTHING.new_zeros(1, 28, 28)])  # the second one is empty
    before, after = Recognizer(FirstPixels()), Recognizer(FirstPixels(), strict)
    own = own_data([7, 7], [7, 0])
    own = DigitData("folder", images, own.train_labels, NOTHING, own.test_labels)
    result = compare(before, after, own, HeldOutImages(images, own.train_labels, True), "digits")
    assert (result["own"]["before"], result["own"]["after"]) == (2, 1)
    assert result["own"]["shown"][0]["after"] == NOT_A_DIGIT
    held_out = result["held_out"]
    assert (held_out["before"], held_out["after"]) == (2, 2)  # as `validate` counts
    assert (held_out["rejected_before"], held_out["rejected_after"]) == (0, 1)


def test_nothing_forgotten_is_stated() -> None:
    same = {"total": 200, "before": 198, "after": 198, "forgotten": 0, "learned": 0}
    assert summarize(same, same, "mnist").endswith("None of them was forgotten.")


def validation_images(**arguments: Any) -> tuple[set[bytes], set[bytes]]:
    """Return the training and validation images of a run with these arguments."""
    data = MNISTDataModule(**arguments)
    data.setup()
    parts = (data.data.train_images[rows] for rows in (data.train_indices, data.val_indices))
    train, val = ({image.tobytes() for image in part.numpy()} for part in parts)
    return train, val


@pytest.mark.parametrize("val_size", [None, 30, 400])
def test_held_out_images_were_not_used_for_training_before(val_size: int | None) -> None:
    train, val = validation_images(dataset="digits", val_size=val_size, split_seed=5)
    facts = {"dataset": "digits", "val_size": 200 if val_size is None else val_size}
    found = held_out_images(DIGITS, 5, facts, NOTHING)
    images = {image.tobytes() for image in found.images.numpy()}
    assert len(found.images) == min(200, val_size or 200)
    assert images <= val
    assert not images & train - val  # some images of the data set are equal
    assert found.are_new


def test_held_out_images_were_not_used_for_training_with_additional_data(tmp_path: Path) -> None:
    _, val = validation_images(
        dataset="digits", val_size=30, extra="strokes", extra_share=0.5, split_seed=5
    )
    facts = {"dataset": "digits", "val_size": 230, "extra_checksums": {"strokes": "abc"}}
    found = held_out_images(DIGITS, 5, facts, NOTHING)
    assert len(found.images) == 30
    assert {image.tobytes() for image in found.images.numpy()} <= val


@pytest.mark.parametrize(
    ("facts", "are_new"),
    [
        ({"dataset": "digits", "val_size": 0}, False),  # trained on all images
        ({}, False),  # unknown
        ({"dataset": "mnist", "val_size": 0}, True),
        ({"dataset": "folder", "val_size": 0, "extra_checksums": {"digits": "abc"}}, False),
        ({"dataset": "folder", "val_size": 210, "extra_checksums": {"digits": "abc"}}, True),
    ],
)
def test_it_is_stated_whether_the_images_are_new(facts: Mapping[str, Any], are_new: bool) -> None:
    found = held_out_images(DIGITS, 0, facts, NOTHING)
    assert (found.are_new, len(found.images)) == (are_new, 200)


def test_a_data_set_without_any_training_is_held_out_completely() -> None:
    facts = {"dataset": "mnist", "val_size": 5200, "extra_checksums": {"strokes": "abc"}}
    found = held_out_images(DIGITS, 0, facts, NOTHING, is_mixed_in=False)
    assert found.are_new
    assert torch.equal(found.images, DIGITS.train_images)
    for known in ({"dataset": "digits", "val_size": 200}, {}):
        assert len(held_out_images(DIGITS, 0, known, NOTHING, is_mixed_in=False).images) == 200


def test_corrected_digits_are_not_held_out() -> None:
    everything = held_out_images(DIGITS, 0, {"dataset": "mnist"}, NOTHING)
    found = held_out_images(DIGITS, 0, {"dataset": "mnist"}, everything.images[3:5])
    assert len(found.images) == 198
    assert torch.equal(found.labels, torch.cat([everything.labels[:3], everything.labels[5:]]))


def test_test_images_are_never_held_out() -> None:
    found = held_out_images(DIGITS, 0, {"dataset": "mnist"}, NOTHING)
    test = {image.tobytes() for image in DIGITS.test_images.numpy()}
    train = {image.tobytes() for image in DIGITS.train_images.numpy()}
    assert not {image.tobytes() for image in found.images.numpy()} & (test - train)


@pytest.mark.mnist
@pytest.mark.slow
def test_the_readings_are_those_of_the_command_validate(command: Command, mnist_dir: Path) -> None:
    run = Run(PRETRAINED_FOLDER)
    data = SOURCES["mnist"].load(mnist_dir)
    found = held_out_images(data, 0, run.summary(), NOTHING)
    readings = read_images(load("pretrained"), found.images)
    where = ("--data.data_dir", str(mnist_dir), "--data.dataset", "mnist")
    printed = command("validate", "pretrained", *where, "--each_image").out
    rows = [line.split() for line in printed.splitlines()]
    rows = [row for row in rows if row[1:2] == ["true"]]
    assert [int(row[2]) for row in rows] == found.labels.tolist()
    assert [int(row[4]) for row in rows] == readings.labels.tolist()


def test_images_are_normalized_as_in_training() -> None:
    seen: list[Tensor] = []

    class Keep(FirstPixels):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return super().forward(images)

    images = DIGITS.train_images[:3]
    read_images(Recognizer(Keep()), images)
    assert torch.equal(seen[0], normalize(images))
    assert np.isfinite(seen[0].numpy()).all()


def test_corrected_digits_that_changed_meanwhile_and_printing_modules_are_handled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The comparison reads the digits after the training; its output is JSON only."""
    (tmp_path / "talking.py").write_text(
        "print('hello')\n\nfrom torch import nn\n\nNet = nn.Linear\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "mine" / "7"
    folder.mkdir(parents=True)
    draw_seven().save(folder / "a.png")
    request = {
        **{"before": "pretrained", "after": "pretrained", "root": str(tmp_path)},
        **{"folder": str(folder.parent), "dataset": "digits", "is_mixed_in": False},
        **{"data_dir": str(tmp_path), "split_seed": 0, "network": "talking.Net"},
    }
    monkeypatch.setattr(sys, "argv", ["compare", json.dumps(request)])
    main()
    captured = capfd.readouterr()
    result = json.loads(captured.out)
    assert result["own"]["total"] == 1
    assert result["notes"] == ["The corrected digits have changed since the training; learn again."]
    assert "hello" in captured.err
