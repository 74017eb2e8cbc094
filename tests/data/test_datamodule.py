"""The data module: its three splits, and invalid arguments."""

from pathlib import Path

import pytest
import torch

from mnist_lightning import MNISTDataModule
from mnist_lightning.data.loader import BatchLoader
from mnist_lightning.data.splits import split
from mnist_lightning.errors import UserError


def set_up(**arguments: object) -> MNISTDataModule:
    data = MNISTDataModule(**arguments)  # type: ignore[arg-type] # as a caller may
    data.prepare_data()
    data.setup()
    return data


def test_split_is_disjoint_complete_and_a_function_of_its_seed() -> None:
    train, val = split(1000, 100, seed=0)
    assert len(train) == 900
    assert sorted(torch.cat([train, val]).tolist()) == list(range(1000))
    torch.manual_seed(5)
    assert torch.equal(split(1000, 100, seed=0)[1], val)
    assert not torch.equal(split(1000, 100, seed=1)[1], val)


def test_a_batch_has_the_documented_shapes_and_types() -> None:
    images, labels = next(iter(set_up(dataset="digits").train_dataloader()))
    assert images.shape == (100, 1, 28, 28)
    assert images.dtype == torch.float32
    assert labels.shape == (100,)
    assert labels.dtype == torch.int64


def test_splits_of_the_bundled_digits_share_no_image() -> None:
    data = set_up(dataset="digits")
    parts = [
        data.data.train_images[data.train_indices],
        data.data.train_images[data.val_indices],
        data.data.test_images,
    ]
    assert [len(part) for part in parts] == [1300, 200, 297]
    unique = [{picture.numpy().tobytes() for picture in part} for part in parts]
    assert not unique[0] & unique[1]
    assert not unique[0] & unique[2]
    assert not unique[1] & unique[2]


def test_bundled_digits_are_in_mnist_s_format() -> None:
    pictures = set_up(dataset="digits").data.train_images
    rows, columns = pictures.amax(2) > 0, pictures.amax(1) > 0
    assert int(torch.maximum(rows.sum(1), columns.sum(1)).max()) <= 20
    mass = pictures.double().sum((1, 2))
    center = (pictures.double().sum(2) * torch.arange(28)).sum(1) / mass
    assert float((center - 14).abs().max()) <= 0.5


def test_the_order_of_training_images_depends_on_the_seed() -> None:
    torch.manual_seed(1)
    one = next(iter(set_up(dataset="digits").train_dataloader()))[1]
    two = next(iter(set_up(dataset="digits").train_dataloader()))[1]
    torch.manual_seed(2)
    three = next(iter(set_up(dataset="digits").train_dataloader()))[1]
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_data_before_setup_is_rejected_with_a_fix() -> None:
    with pytest.raises(RuntimeError, match="call prepare_data"):
        MNISTDataModule(dataset="digits").train_dataloader()


def test_a_validation_set_of_all_images_is_rejected() -> None:
    with pytest.raises(UserError, match="leaves no training images"):
        set_up(dataset="digits", val_size=1500)


def test_negative_sizes_are_rejected() -> None:
    with pytest.raises(ValueError, match="val_size: invalid value -1"):
        MNISTDataModule(val_size=-1)


@pytest.mark.mnist
def test_mnist_is_split_55000_5000_10000_without_overlap(mnist_dir: Path) -> None:
    data = set_up(data_dir=str(mnist_dir))
    assert data.data.name == "mnist"
    assert len(data.train_indices) == 55_000
    assert len(data.val_indices) == 5_000
    assert not set(data.train_indices.tolist()) & set(data.val_indices.tolist())
    assert len(data.data.test_labels) == 10_000
    test = data.test_dataloader()
    assert isinstance(test, BatchLoader)
    assert torch.equal(torch.cat([labels for _, labels in test]), data.data.test_labels)


@pytest.mark.mnist
def test_val_size_0_trains_on_all_60000(mnist_dir: Path) -> None:
    data = set_up(data_dir=str(mnist_dir), val_size=0)
    assert sorted(data.train_indices.tolist()) == list(range(60_000))
    assert data.val_dataloader() == []
