"""The data set that a run was trained on."""

from pathlib import Path

from mnist_lightning.data.datasets import SOURCES, DigitData
from mnist_lightning.data.image_folder import load_folder
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.runs.run_directory import Run

# What is told of a run.
_NEEDED = {
    "dataset": str,
    "checksum": str,
    "state": str,
    "started": str,
    "device": str,
    "network": dict,
    "versions": dict,
    "parameters": int,
    "train_size": int,
    "threads": int,
    "seed": int,
    "epochs": int,
    "fit_seconds": int | float,
}

# What may be told, if it is of this kind.
_OPTIONAL = {
    "val/accuracy": int | float,
    "test/correct": int,
    "test/total": int,
    "best_epoch": int,
    "epoch_seconds": int | float,
    "commit": str,
    "extra_checksums": dict,
}


def data_of(run: Run, data_dir: str | None, unchanged: bool = True) -> DigitData:
    """Load the data set that a run was trained on.

    Args:
        run: the run.
        data_dir: where its data set is now; None: where it was.
        unchanged: whether it has to be what it was then.

    Raises:
        UserError: the run does not say which it was, it is not here, or it is another one.
    """
    summary = run.summary()
    if not run.config.is_file() or not summary:
        raise UserError(f"{run.folder} was not made by `fit`: it does not say what it is")
    if not {"dataset", "network"} & summary.keys():
        raise UserError(
            f"{run.folder} was ended before its training began: there is nothing to tell"
        )
    damaged = [name for name, kind in _NEEDED.items() if not isinstance(summary.get(name), kind)]
    damaged += [
        name
        for name, kind in _OPTIONAL.items()
        if summary.get(name) is not None and not isinstance(summary[name], kind)
    ]
    if "network" not in damaged and not isinstance(summary["network"].get("class_path"), str):
        damaged.append("network")
    if damaged or summary["dataset"] not in (*SOURCES, "folder"):
        wrong = ", ".join(damaged or ["dataset"])
        raise UserError(f"the summary.json of {run.folder} is damaged: {wrong} missing or nonsense")
    section = run.read_config().get("data")
    options = section if isinstance(section, dict) else {}
    own = summary["dataset"] == "folder"
    try:
        named = data_dir or options.get("folder" if own else "data_dir", "data")
        place = Path(str(named)).expanduser()
        test_share = float(options["test_share"]) if own else 0.0
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # `~nobody`
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise UserError(f"{run.config} is damaged: data: {reason}") from None
    try:
        if own:
            data, _ = load_folder(place, test_share)
        else:
            data = SOURCES[summary["dataset"]].load(place)
    except (FileNotFoundError, UserError) as missing:
        remedy = "say where the data set is: --data.data_dir DATA"
        raise UserError(f"{missing}; {remedy}") from None
    if unchanged and data.checksum != summary["checksum"]:
        raise UserError(
            f"the {data.name} in {place} is not the one that the run was trained on; put it back "
            f"as it was, say where it is (--data.data_dir DIR), or train anew: {PROGRAM} fit"
        )
    return data
