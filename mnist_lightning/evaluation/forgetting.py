"""Compare a network before and after fine-tuning: on your own images, and on held-out images.

`main` is the main function of a process: the server must respond while thousands of images are
evaluated.
"""

import base64
import json
import re
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist_lightning.data.datasets import SOURCES, DigitData
from mnist_lightning.data.image_folder import load_folder
from mnist_lightning.data.splits import default_val_size, split
from mnist_lightning.errors import UserError
from mnist_lightning.inference import Recognizer, import_network_class, load
from mnist_lightning.preprocessing.mnist_format import png
from mnist_lightning.preprocessing.normalization import normalize
from mnist_lightning.runs import lookup
from mnist_lightning.text import percent, plural, printable

MAX_SHOWN = 60  # of your own images
BATCH_SIZE = 200  # fits into the processor's caches
NOT_A_DIGIT = -1  # instead of a label


class HeldOutImages(NamedTuple):
    """Images that were not used for training, neither before nor during fine-tuning.

    Attributes:
        images: (N, 28, 28) uint8.
        labels: (N,).
        are_new: False if the network may have been trained on them before fine-tuning.
    """

    images: Tensor
    labels: Tensor
    are_new: bool


def held_out_images(
    data: DigitData,
    split_seed: int,
    facts: Mapping[str, Any],
    own_images: Tensor,
    is_mixed_in: bool = True,
) -> HeldOutImages:
    """Return the images of a data set that neither training has seen, without its test images.

    Args:
        data: the data set.
        split_seed: selects its validation images.
        facts: the summary of the run before fine-tuning, with the same `split_seed`.
        own_images: (M, 28, 28), which are removed if they are among the images.
        is_mixed_in: whether fine-tuning uses the training images of the data set.
    """
    val_size = default_val_size(data)
    unseen = min(val_size, _unseen_size(data, facts))
    known = {facts.get("dataset", data.name), *facts.get("extra_checksums", {})}
    if not is_mixed_in and data.name not in known:
        val_size = unseen = len(data.train_labels)
    # The smaller of two splits of the same seed is a part of the larger one.
    indices = split(len(data.train_labels), unseen or val_size, split_seed)[1]
    images, labels = data.train_images[indices], data.train_labels[indices]
    own = {image.tobytes() for image in own_images.numpy()}
    kept = torch.tensor([image.tobytes() not in own for image in images.numpy()], dtype=torch.bool)
    return HeldOutImages(images[kept], labels[kept], unseen > 0)


def _unseen_size(data: DigitData, facts: Mapping[str, Any]) -> int:
    """Return how many validation images of a data set a run was not trained on."""
    complete = default_val_size(data)
    if "dataset" not in facts:  # a checkpoint without its run
        return 0
    extras = facts.get("extra_checksums", {})
    total: int = facts.get("val_size", 0)
    if facts["dataset"] == data.name:
        return max(0, total - sum(map(_extra_val_size, extras)))
    if data.name in extras:  # additional data sets are validated completely, or not at all
        return complete if total else 0
    return complete


def _extra_val_size(name: str) -> int:
    """Return the number of validation images of `strokes` or of the bundled digits.

    Other data sets have more. To read them would take long, and a run with two is rare.
    """
    return default_val_size(SOURCES[name].load(Path())) if name in ("strokes", "digits") else 5_000


class Readings(NamedTuple):
    """What a network reads: labels (N,), and whether an image is probably not a digit (N,)."""

    labels: NDArray[np.int64]
    rejected: NDArray[np.bool_]


def read_images(recognizer: Recognizer, images: Tensor) -> Readings:
    """Read images (N, 28, 28) uint8, 0 for paper."""
    labels, rejected = [np.zeros(0, np.int64)], [np.zeros(0, np.bool_)]
    for batch in images.split(BATCH_SIZE):
        probabilities = recognizer.probabilities(normalize(batch)).numpy()
        labels.append(probabilities.argmax(axis=1))
        rejected.append(recognizer.calibration.rejects(probabilities))
    return Readings(np.concatenate(labels), np.concatenate(rejected))


def compare(
    before: Recognizer, after: Recognizer, own: DigitData, held_out: HeldOutImages, name: str
) -> dict[str, Any]:
    """Compare two networks.

    Args:
        before: the network before fine-tuning.
        after: the network after fine-tuning.
        own: your images, all of them for training.
        held_out: images that neither training has seen.
        name: the data set of these images.

    Returns:
        Plain values: `own` with counts and single images, `held_out` with counts, and a `summary`.
    """
    recognizers, true = (before, after), own.train_labels.numpy()
    # A drawing is read correctly only if the page shows its label.
    shown = [
        np.where(rejected, NOT_A_DIGIT, labels)
        for labels, rejected in (read_images(each, own.train_images) for each in recognizers)
    ]
    # The accuracy on a data set is the usual one, of the command `validate`.
    readings = [read_images(each, held_out.images) for each in recognizers]
    own_counts = _count(shown[0], shown[1], true)
    counts = _count(readings[0].labels, readings[1].labels, held_out.labels.numpy())
    rejected = [int(each.rejected.sum()) for each in readings]
    return {
        "own": {**own_counts, "shown": _list_images(own, *shown)},
        "held_out": {
            **counts,
            "dataset": name,
            "are_new": held_out.are_new,
            "rejected_before": rejected[0],
            "rejected_after": rejected[1],
        },
        "summary": summarize(own_counts, counts, name),
    }


def _count(
    before: NDArray[np.int64], after: NDArray[np.int64], true: NDArray[np.int64]
) -> dict[str, int]:
    """Count the images that are read correctly, from the labels (N,)."""
    was_correct, is_correct = before == true, after == true
    return {
        "total": len(true),
        "before": int(was_correct.sum()),
        "after": int(is_correct.sum()),
        "forgotten": int((was_correct & ~is_correct).sum()),
        "learned": int((is_correct & ~was_correct).sum()),
    }


def _list_images(
    own: DigitData, before: NDArray[np.int64], after: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """List your images: those that are misread first, after or before fine-tuning."""
    true = own.train_labels.numpy()
    order = np.lexsort((true, before == true, after == true))
    return [
        {
            "label": int(true[index]),
            "before": int(before[index]),
            "after": int(after[index]),
            "image": "data:image/png;base64,"
            + base64.b64encode(png(own.train_images[index].numpy())).decode(),
        }
        for index in order[:MAX_SHOWN]
    ]


def summarize(own: Mapping[str, int], held_out: Mapping[str, int], name: str) -> str:
    """Return the result in plain sentences."""
    total = held_out["total"]
    accuracies = [percent(held_out[when] / total) for when in ("before", "after")] if total else []
    counts = f"{own['before']:,} of {own['total']:,} correct before, {own['after']:,} after"
    parts = [f"Your digits: {counts}."]
    if own["after"] < own["total"]:
        parts.append("Correct more digits like the others, and learn again.")
    if accuracies:
        images = plural(total, "held-out image")
        parts.append(f"{images} of {name}: {accuracies[0]} before, {accuracies[1]} after.")
        lost, won = held_out["forgotten"], held_out["learned"]
        changes = f"{lost:,} of them correct only before (forgotten), {won:,} only after."
        parts.append(changes if lost or won else "None of them was forgotten.")
    return " ".join(parts)


def main() -> None:
    """Compare two networks as the JSON in the first argument says; print the result as JSON.

    Its entries: `before` and `after`, RUNs; `root`, the directory of the runs; `folder`, that of
    your images; `dataset`, `data_dir`, `split_seed` and `is_mixed_in` of the held-out images;
    `network`, the class of your own network or null.
    """
    request = json.loads(sys.argv[1])
    try:
        with redirect_stdout(sys.stderr):  # the user's own module may print
            result = _compare_as_requested(request)
        print(json.dumps(result))
    except (UserError, OSError) as error:
        print(printable(str(error)), file=sys.stderr)
        sys.exit(1)


def _compare_as_requested(request: Mapping[str, Any]) -> dict[str, Any]:
    root, classes = Path(request["root"]), import_network_class(request["network"])
    before, after = (load(request[when], root, classes) for when in ("before", "after"))
    own, notice = load_folder(Path(request["folder"]), test_share=0)
    data = SOURCES[request["dataset"]].load(Path(request["data_dir"]))
    run, _ = lookup.find(request["before"], root)
    held_out = held_out_images(
        *(data, request["split_seed"], run.summary(), own.train_images, request["is_mixed_in"])
    )
    result = compare(before, after, own, held_out, data.name)
    # It is no problem that there are no digits with some labels.
    notes = [re.sub(r"(^|; )no images of [\d, …]+$", "", notice or "")]
    taught, _ = lookup.find(request["after"], root)
    if taught.summary().get("checksum") != own.checksum:
        notes.append("The corrected digits have changed since the training; learn again.")
    return {**result, "notes": list(filter(None, notes))}
