"""Images in a grid."""

import numpy as np

from mnist_lightning.evaluation.image_grid import CAPTION_HEIGHT, GAP, as_pixels, grid


def test_images_are_in_rows_dark_on_white() -> None:
    images = np.zeros((3, 28, 28), np.uint8)
    images[2] = 255
    sheet = grid(images, columns=2, zoom=2)
    assert sheet.shape == (2 * (56 + GAP) + GAP, 2 * (56 + GAP) + GAP)
    top = 56 + 2 * GAP
    assert (sheet[top : top + 56, GAP : GAP + 56] == 0).all()
    assert (sheet == 0).sum() == 56**2


def test_captions_are_below_their_images() -> None:
    images = np.zeros((2, 28, 28), np.uint8)
    plain, captioned = grid(images, 2), grid(images, 2, ["3 as 5 98%", ""])
    assert captioned.shape == (plain.shape[0] + CAPTION_HEIGHT, plain.shape[1])
    rows, columns = np.nonzero(captioned < 255)
    assert rows.min() >= GAP + 56
    assert columns.max() < captioned.shape[1] // 2 + 8


def test_values_are_scaled_to_all_grays() -> None:
    values = np.array([[[-2.0, 0.0], [1.0, 2.0]]])
    assert as_pixels(values).tolist() == [[[0, 127], [191, 255]]]
    assert as_pixels(np.ones((1, 2, 2))).max() == 0
