"""The data set that a run was trained on."""

from pathlib import Path
from typing import NamedTuple

from mnist_lightning.data.arguments import OWN_DATA
from mnist_lightning.data.datasets import SOURCES, DigitData
from mnist_lightning.data.own_data import load_own
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.runs.run_directory import Run

# The entries of `summary.json` that a report and an export need.
_REQUIRED = (
    *("dataset", "checksum", "state", "started", "device", "network", "versions"),
    *("parameters", "train_size", "threads", "seed", "epochs", "fit_seconds"),
)


class RunData(NamedTuple):
    """The data set of a run, and the directory that contains it."""

    data: DigitData
    folder: Path


def load_run_dataset(run: Run, data_dir: str | None, unchanged: bool = True) -> RunData:
    """Load the data set that a run was trained on.

    Args:
        run: the run.
        data_dir: where its data set is now; None: where it was during training.
        unchanged: whether the data set must be the same as during training.

    Raises:
        UserError: the summary is damaged, or the data set is missing or different.
    """
    summary = run.summary()
    if not run.config.is_file() or not summary:
        raise UserError(f"{run.folder} was not made by `fit`: config.yaml or summary.json missing")
    if not {"dataset", "network"} & summary.keys():
        raise UserError(
            f"{run.folder} stopped before its training started: there is nothing to report"
        )
    damaged = [name for name in _REQUIRED if name not in summary]
    if damaged or summary["dataset"] not in (*SOURCES, *OWN_DATA):
        names = ", ".join(damaged or ["dataset"])
        raise UserError(f"the summary.json of {run.folder} is damaged: {names} missing or invalid")
    config, own = run.read_signed_config()
    section = config.get("data")
    options = section if isinstance(section, dict) else {}
    is_own = summary["dataset"] in OWN_DATA
    if is_own and not own and data_dir is None:
        raise UserError(f"{run.folder} was not made on this machine: add --data.data_dir DIR")
    try:
        text = data_dir or options.get("folder" if is_own else "data_dir", "data")
        path = Path(str(text)).expanduser()
        test_share = float(options["test_share"]) if is_own else 0.0
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # `~nobody`
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise UserError(f"{run.config} is damaged: data: {reason}") from None
    try:
        if is_own:
            data, _ = load_own(summary["dataset"], path, test_share)
        else:
            data = SOURCES[summary["dataset"]].load(path)
    except (FileNotFoundError, UserError) as error:
        fix = "give the directory of the data set: --data.data_dir DIR"
        raise UserError(f"{error}; {fix}") from None
    if unchanged and data.checksum != summary["checksum"]:
        raise UserError(
            f"the {data.name} in {path} differs from the training data of the run; restore the "
            f"data, give the right directory (--data.data_dir DIR), or train again: {PROGRAM} fit"
        )
    return RunData(data, path)
