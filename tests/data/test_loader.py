"""Batches: normalized, each sample once, in an order that depends only on seed and epoch."""

import pytest
import torch

from mnist_lightning.data.loader import BatchDataset, BatchLoader, epoch_order
from mnist_lightning.preprocessing.normalization import MEAN, STD, normalize


def loader(num_workers: int = 0, count: int = 105, seed: int | None = 3) -> BatchLoader:
    images = torch.arange(count, dtype=torch.uint8)[:, None, None].expand(count, 28, 28)
    return BatchLoader(BatchDataset(images.clone(), torch.arange(count), 10, seed), num_workers)


def label_order(batches: BatchLoader, epoch: int) -> list[int]:
    batches.sampler.set_epoch(epoch)
    return torch.cat([labels for _, labels in batches]).tolist()


def test_normalize_has_mean_0_and_deviation_1_where_mnist_has() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None].expand(2, 28, 28)
    images = normalize(pixels)
    assert images.shape == (2, 1, 28, 28)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images[0, 0, 0, 0].item(), -MEAN / STD)
    torch.testing.assert_close(images[1, 0, 0, 0].item(), (1 - MEAN) / STD)


def test_an_epoch_has_every_sample_once() -> None:
    assert sorted(label_order(loader(), 0)) == list(range(105))


def test_the_last_batch_contains_the_remaining_samples() -> None:
    sizes = [len(labels) for _, labels in loader()]
    assert sizes == [10] * 10 + [5]
    assert len(loader()) == 11


def test_images_belong_to_their_labels() -> None:
    for images, labels in loader():
        pixels = images[:, 0, 0, 0] * (255 * STD) + 255 * MEAN
        assert torch.equal(pixels.round().long(), labels)


def test_the_order_depends_only_on_seed_and_epoch() -> None:
    assert label_order(loader(), 4) == label_order(loader(), 4)
    orders = {tuple(epoch_order(105, seed, epoch).tolist()) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_without_a_seed_samples_keep_their_order() -> None:
    assert label_order(loader(seed=None), 5) == list(range(105))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_do_not_change_the_batches(num_workers: int) -> None:
    without_workers, with_workers = loader(), loader(num_workers)
    for epoch in (0, 1, 5):
        without_workers.sampler.set_epoch(epoch)
        with_workers.sampler.set_epoch(epoch)
        for one, other in zip(without_workers, with_workers, strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_epoch_may_be_set_after_iter(num_workers: int) -> None:
    batches = loader(num_workers)
    iterator = iter(batches)
    batches.sampler.set_epoch(7)
    assert next(iterator)[1].tolist() == label_order(loader(), 7)[:10]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_global_generator_is_not_used(num_workers: int) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    list(loader(num_workers))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("given", [1, 6, 11])
def test_a_resumed_epoch_has_the_remaining_samples_and_the_next_has_all(
    num_workers: int, given: int
) -> None:
    first = loader(num_workers)
    first.sampler.set_epoch(4)
    batches = iter(first)
    seen = torch.cat([next(batches)[1] for _ in range(given)]).tolist()
    state = first.state_dict()
    first.close()

    resumed = loader(num_workers)
    resumed.load_state_dict(state)
    seen += label_order(resumed, 4) if given < 11 else []
    assert seen == label_order(loader(), 4)
    assert label_order(resumed, 5) == label_order(loader(), 5)
    resumed.close()


def test_a_position_in_another_epoch_is_ignored() -> None:
    resumed = loader()
    resumed.load_state_dict({"epoch": 4, "given": 6})
    assert label_order(resumed, 5) == label_order(loader(), 5)
