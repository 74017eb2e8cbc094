"""The options of `fit` that fine-tune a network on corrected digits, and limit forgetting."""

import json
from pathlib import Path
from typing import NamedTuple

from torch import nn

from mnist_lightning.data.datasets import NOT_DIGITS, SOURCES
from mnist_lightning.errors import PACKAGE, PROGRAM, UserError
from mnist_lightning.networks.registry import REGISTERED, describe, parse_description
from mnist_lightning.runs.run_directory import Run

CONFIG = PACKAGE / "configs" / "my_handwriting.yaml"
DIGIT_SETS = ("mnist", "qmnist", "emnist_digits", "digits")
SYNTHETIC = "strokes"  # always mixed in, as in CONFIG

# Each image has this share of an epoch, up to the maximum: with a larger share, a single digit
# would change the network's preference between labels.
SHARE_PER_IMAGE, MAX_SHARE = 0.01, 0.2
MAX_BATCHES = 125  # per epoch, of 128 images
EPOCHS = 4
# The bundled digits and the synthetic ones are so few that an epoch has only 25 batches.
SMALL_MAX_BATCHES, SMALL_EPOCHS = 25, 20


class Rehearsal(NamedTuple):
    """The data set that is mixed in, so that the network does not forget it.

    Attributes:
        dataset: its name.
        data_dir: the directory of its files.
        split_seed: selects its validation images.
        note: why it is not the data set on which the network was trained; None if it is.
    """

    dataset: str
    data_dir: Path
    split_seed: int
    note: str | None


def choose_rehearsal(run: Run, data_dir: Path | None) -> Rehearsal:
    """Choose the digits that a run was trained on; if they are missing, the bundled ones.

    Nothing is downloaded: the user waits.

    Args:
        run: the run before fine-tuning.
        data_dir: the directory of the data sets; None: that of the run, if this user made it.

    Raises:
        UserError: the run was not trained on digits.
    """
    facts = run.summary("dataset", "extra_checksums", "split_seed")
    if facts.get("dataset") in NOT_DIGITS:
        problem = f"{run.folder.name} was trained on {facts['dataset']}, which are not digits"
        raise UserError(f"{problem}; select another run")
    trained_on = [facts.get("dataset"), *facts.get("extra_checksums", {})]
    wanted = next((name for name in trained_on if name in DIGIT_SETS), "mnist")
    place = data_dir or _data_dir(run)
    missing = _missing(wanted, place)
    used = wanted if missing is None else "digits"
    note = None
    if missing is not None:
        note = (
            f"{missing}. Therefore the bundled digits are mixed in, and only forgetting of these is "
            f"measured. To use {wanted}: {PROGRAM} data {wanted} --fetch --data.data_dir {place}"
        )
    return Rehearsal(used, place, facts.get("split_seed", 0), note)


def _data_dir(run: Run) -> Path:
    """Return the directory of the data sets of a run of this user; of another run, the default."""
    default = Path("data")
    if not run.config.is_file():
        return default
    try:
        config, own = run.read_signed_config()
        return Path(str(config["data"]["data_dir"])).expanduser() if own else default
    except (UserError, KeyError, TypeError, RuntimeError):
        return default


def _missing(dataset: str, data_dir: Path) -> str | None:
    """Return why a data set cannot be used; None if it can."""
    try:
        SOURCES[dataset].load(data_dir)
    except (FileNotFoundError, UserError) as error:
        return str(error)
    return None


def network_options(network: nn.Module, user_class: str | None) -> list[str]:
    """Return the options of a network.

    Args:
        network: the network.
        user_class: the name of its class, if it is one of the user's own.

    Raises:
        UserError: the arguments of its class are unknown.
    """
    path, arguments = parse_description(describe(network))
    name = path.rpartition(".")[2] if path in REGISTERED else user_class
    if name is None or arguments is None:
        raise UserError(f"the network {path} does not store its arguments; select another run")
    texts = {n: value if isinstance(value, str) else json.dumps(value) for n, value in arguments.items()}
    return [f"--model.network={name}", *(f"--model.network.{n}={t}" for n, t in texts.items())]


class Lengths(NamedTuple):
    """The length of a fine-tuning, and the share of an epoch that is mixed in."""

    epochs: int
    batches: int
    extra_share: float


def choose_lengths(dataset: str, images: int) -> Lengths:
    """Choose the length for a number of corrected digits, and a data set that is mixed in."""
    is_small = dataset == "digits"
    epochs, batches = (SMALL_EPOCHS, SMALL_MAX_BATCHES) if is_small else (EPOCHS, MAX_BATCHES)
    return Lengths(epochs, batches, round(1 - min(MAX_SHARE, images * SHARE_PER_IMAGE), 4))


def fit_options(
    source: str, folder: Path, run: Run, root: Path, rehearsal: Rehearsal, lengths: Lengths
) -> list[str]:
    """Return the command `fit` and its options, except those of the network.

    Args:
        source: the RUN before fine-tuning.
        folder: the corrected digits.
        run: the run of the fine-tuning.
        root: the directory of the runs.
        rehearsal: what is mixed in.
        lengths: for how long.
    """
    options = {
        "config": CONFIG,
        "init_from": source,
        "run_dir": run.folder,
        "trainer.default_root_dir": root.parent,
        "data.folder": folder,
        "data.data_dir": rehearsal.data_dir,
        "data.split_seed": rehearsal.split_seed,
        "data.extra": f"[{rehearsal.dataset},{SYNTHETIC}]",
        "data.extra_share": lengths.extra_share,
        # Every corrected digit is learned; the others are validated.
        "data.test_share": 0,
        "data.val_extra_only": "true",
        "trainer.max_epochs": lengths.epochs,
        "trainer.limit_train_batches": lengths.batches,
        # Without other validations, the best checkpoint is the last one.
        "trainer.check_val_every_n_epoch": lengths.epochs,
        "trainer.enable_progress_bar": "false",
        "dashboards": "none",
        "keep_last": 1,
    }
    return ["fit", *(f"--{name}={value}" for name, value in options.items())]
