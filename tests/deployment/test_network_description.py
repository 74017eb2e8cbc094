"""The description of a network for the page."""

import base64
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from mnist_lightning import load
from mnist_lightning.deployment.neighbors import training_digits
from mnist_lightning.deployment.network_description import describe, pack
from mnist_lightning.preprocessing.normalization import normalize


@pytest.mark.slow
def test_a_network_predicts_while_it_is_described() -> None:
    recognizer = load("pretrained")
    images = normalize(torch.from_numpy(training_digits()[::10]))
    expected = recognizer.calibrated_probabilities(images)[0]
    with ThreadPoolExecutor(1) as pool:
        descriptions = [pool.submit(describe, recognizer.network) for _ in range(5)]
        while not all(description.done() for description in descriptions):
            actual = recognizer.calibrated_probabilities(images)[0]
            assert actual == pytest.approx(expected, rel=1e-4, abs=1e-9)
        assert all(each.result() == descriptions[0].result() for each in descriptions)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_weights_are_rounded_relative_to_the_largest_of_their_output(scale: float) -> None:
    weights = scale * np.random.default_rng(0).normal(size=(4, 3, 5, 5)).astype(np.float32)
    weights[1] *= 1e-3
    packed = pack(weights)
    integers = np.frombuffer(_bytes(packed["content"]), "<i2").reshape(weights.shape)
    scales = np.frombuffer(_bytes(packed["scales"]["content"]), "<f4")
    error = np.abs(integers * scales[:, None, None, None] - weights).max(axis=(1, 2, 3))
    assert (error <= np.abs(weights).max(axis=(1, 2, 3)) / 60_000).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_kept(value: float) -> None:
    packed = pack(np.full((2, 2), value, np.float32))
    assert packed["bits"] == 32


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)
