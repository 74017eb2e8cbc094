"""Measure a network's accuracy on kinds of corruption that its training did not contain.

    python benchmarks/left_out_kinds.py configs/NAME.yaml --data_dir DATA [--images test] [OPTION…]

The config is trained once for each group of augmentations, without this group. The network is then
evaluated on the kinds of corruption of the group, in five severities. Last, the config is trained
with all augmentations, and evaluated on all kinds. Other options are passed to `fit`.
"""

import argparse
import copy
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from mnist_lightning import load
from mnist_lightning.cli.parser import read_seeds
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.data.splits import default_val_size, split
from mnist_lightning.evaluation.corruptions import CORRUPTIONS, corrupt
from mnist_lightning.evaluation.published import Recipe
from mnist_lightning.inference import Recognizer
from mnist_lightning.preprocessing.normalization import normalize
from mnist_lightning.text import percent, say
from mnist_lightning.training.recipe_runs import train_seed

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]  # (N, 28, 28) and labels (N,)
NUM_IMAGES = 2000


class Group(NamedTuple):
    """Augmentations that are left out together, and the corruptions that they resemble.

    Attributes:
        removed: classes of augmentations.
        disabled: arguments of `Deformation` that are set to 0.
        kinds: names of corruptions.
    """

    removed: set[str]
    disabled: set[str]
    kinds: set[str]


GROUPS = {
    "rotation and shift": Group(set(), {"degrees", "shift"}, {"rotation", "shift"}),
    "shear and scale": Group(set(), {"shear", "scale", "stretch"}, {"shear", "scale"}),
    "strokes": Group({"StrokeWidth"}, set(), {"thinner strokes", "thicker strokes"}),
    "noise": Group({"Noise"}, set(), {"noise", "impulse noise"}),
    "light": Group({"Lighting", "RandomFilter"}, set(), {"contrast", "brightness", "fog"}),
    "clutter": Group({"Clutter", "Cutout"}, set(), {"occlusion", "lines", "inverted stripe"}),
    "sharpness": Group(
        {"Blur", "LowResolution", "RandomFilter"},
        set(),
        {"blur", "motion blur", "pixelation", "outline"},
    ),
    "nothing": Group(set(), set(), {kind.name for kind in CORRUPTIONS}),
}


def without(config: dict[str, Any], group: Group) -> dict[str, Any]:
    """Return a config without the augmentations of a group."""
    changed = copy.deepcopy(config)
    kept = []
    for augmentation in changed["data"]["augment"]:
        name = augmentation["class_path"].rpartition(".")[-1]
        if name == "Deformation":
            augmentation["init_args"] |= dict.fromkeys(group.disabled, 0.0)
        if name not in group.removed:
            kept.append(augmentation)
    changed["data"]["augment"] = kept
    return changed


def read_images(kind: str, val_size: int | None, data_dir: Path) -> Images:
    """Return test images, or validation images, which no seed changes."""
    data = SOURCES["mnist"].load(data_dir)
    if kind == "test":
        return data.test_images[:NUM_IMAGES].numpy(), data.test_labels[:NUM_IMAGES].numpy()
    size = default_val_size(data) if val_size is None else val_size
    if size == 0:
        raise SystemExit("the config has no validation images: use --images test")
    _, indices = split(len(data.train_labels), size, 0)
    chosen = indices[:NUM_IMAGES]
    return data.train_images[chosen].numpy(), data.train_labels[chosen].numpy()


def accuracies(recognizer: Recognizer, images: Images, kinds: set[str]) -> Iterator[list[float]]:
    """Yield the accuracies without corruption, and on each severity of each kind."""
    pixels, labels = images

    def accuracy(changed: NDArray[np.uint8]) -> float:
        batches = normalize(torch.from_numpy(changed)).split(500)
        predicted = [recognizer.probabilities(batch).argmax(dim=1).numpy() for batch in batches]
        return float((np.concatenate(predicted) == labels).mean())

    yield [accuracy(pixels)]
    for kind in CORRUPTIONS:
        if kind.name in kinds:
            yield [accuracy(corrupt(kind, pixels, strength)) for strength in kind.strengths]


def mean(rows: list[list[float]]) -> float:
    """Return the mean over all kinds and severities."""
    return float(np.mean(rows))


def measure(
    name: str, config: dict[str, Any], seed: int, options: argparse.Namespace
) -> list[list[float]]:
    """Train without a group; return the accuracies on its kinds."""
    recipe = Recipe(
        config_file=None,
        config=without(config, GROUPS[name]),
        options=options.fit_options,
        threads=1,
        accelerator="cpu",
    )
    with tempfile.TemporaryDirectory() as folder:
        run = train_seed(recipe, seed, Path(folder), options.data_dir).run
        val_size = yaml.safe_load(run.config.read_text())["data"]["val_size"]
        images = read_images(options.images, val_size, Path(options.data_dir))
        return list(accuracies(load(run.folder), images, GROUPS[name].kinds))


def main() -> None:
    """Print a row for each kind of corruption."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--images", choices=("validation", "test"), default="validation")
    parser.add_argument("--seeds", type=read_seeds, default=[1])
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--workers", type=int, default=2)
    options, fit_options = parser.parse_known_args()
    options.fit_options = fit_options
    torch.set_num_threads(1)
    config = yaml.safe_load(options.config.read_text())
    left_out = []
    with ThreadPoolExecutor(options.workers) as pool:
        for seed in options.seeds:
            run = partial(measure, config=config, seed=seed, options=options)
            for name, (clean, *rows) in zip(
                options.groups, pool.map(run, options.groups), strict=True
            ):
                say(f"seed {seed}, without {name}: clean {percent(clean[0])}", flush=True)
                names = [kind.name for kind in CORRUPTIONS if kind.name in GROUPS[name].kinds]
                for kind, row in zip(names, rows, strict=True):
                    each = ", ".join(f"{100 * value:.1f}" for value in row)
                    say(f"  {kind}: {percent(mean([row]))} ({each})", flush=True)
                if name == "nothing":
                    say(f"  mean of all kinds: {percent(mean(rows))}", flush=True)
                else:
                    left_out += rows
    if left_out:
        say(
            f"mean of {len(left_out)} kinds and seeds that were left out: {percent(mean(left_out))}"
        )


if __name__ == "__main__":
    main()
