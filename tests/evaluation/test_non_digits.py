"""Images without digits are drawn, found on disk, and compared with digits."""

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mnist_lightning.data import datasets
from mnist_lightning.evaluation import non_digits
from mnist_lightning.evaluation.non_digits import Detection, detect


def test_the_auroc_is_the_probability_that_a_digit_scores_higher() -> None:
    assert detect("a", np.array([3.0, 4, 5]), np.array([0.0, 1])) == Detection("a", 2, 1, 0)
    assert detect("a", np.array([0.0, 1]), np.array([3.0, 4])) == Detection("a", 2, 0, 1)
    assert detect("a", np.zeros(5), np.zeros(7)) == Detection("a", 7, 0.5, 1)  # ties count half
    generator = np.random.default_rng(0)
    digits, others = generator.normal(1, 1, 300), generator.normal(0, 1, 200)
    pairs = (digits[:, None] > others).mean()
    assert detect("a", digits, others).auroc == pytest.approx(pairs)


def test_the_limit_accepts_95_percent_of_the_digits() -> None:
    digits = np.arange(100.0)
    found = detect("a", digits, np.array([4.9, 5.0, 6.0, 200.0]))
    assert (digits >= np.quantile(digits, 0.05)).sum() == 95
    assert found.accepted == 0.75


@pytest.mark.parametrize("kind", non_digits.KINDS)
def test_each_kind_is_drawn_in_the_format_of_mnist_and_always_the_same(kind: str) -> None:
    images = non_digits.draw(kind)
    assert images.shape[1:] == (28, 28)
    assert images.dtype == np.uint8
    assert (images.max(axis=(1, 2)) > 200).all()
    assert len(np.unique(images, axis=0)) > 0.7 * len(images)
    assert np.array_equal(images, non_digits.draw(kind))


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


def test_letters_on_disk_are_upright_and_separated_from_letters_like_digits(
    tmp_path: Path,
) -> None:
    assert non_digits.read_other_data(tmp_path) == {}
    labels = np.arange(1, 27, dtype=np.uint8).repeat(10)
    images = np.zeros((260, 28, 28), np.uint8)
    images[:, 3, 5] = labels  # stored transposed: upright, it is in row 5, column 3
    raw = tmp_path / "EMNIST" / "raw"
    write_idx(raw / "emnist-letters-test-images-idx3-ubyte", images)
    write_idx(raw / "emnist-letters-test-labels-idx1-ubyte", labels)
    found = non_digits.read_other_data(tmp_path)
    assert list(found) == ["EMNIST letters", "EMNIST letters like digits"]
    letters = {name: set(part[:, 5, 3].tolist()) for name, part in found.items()}
    similar = {ord(letter) - 96 for letter in "bgiloqsz"}
    assert letters["EMNIST letters like digits"] == similar
    assert letters["EMNIST letters"] == set(range(1, 27)) - similar


def test_other_data_sets_are_used_and_damaged_ones_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = datasets.SOURCES["digits"].load(tmp_path)
    source = datasets.SOURCES["kmnist"]._replace(load=lambda _: data)
    monkeypatch.setitem(datasets.SOURCES, "kmnist", source)
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"damaged")
    write_idx(
        tmp_path / "EMNIST" / "raw" / "emnist-letters-test-images-idx3-ubyte",
        np.zeros(3, np.uint8),
    )
    found = non_digits.read_other_data(tmp_path)
    assert list(found) == ["kmnist"]
    assert len(found["kmnist"]) == 297
