"""The command `report`: pictures of what a run did, in its own folder."""

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mnist_lightning import runs
from mnist_lightning.data.sources import SOURCES, DigitData
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.evaluation import plots
from mnist_lightning.files import write_atomically
from mnist_lightning.options import CommandParser, runs_root
from mnist_lightning.runs import Run
from mnist_lightning.tables import METRICS_FILE, read_history, read_predictions

DPI = 150
MISTAKES = 24  # in rows of 6


def main(arguments: list[str]) -> int:
    """Draw a run's samples, curves, predictions and mistakes into its folder `report`."""
    parser = CommandParser("report", "Draw what a run did, as PNGs in its folder.", "best")
    parser.add_argument(
        "run", nargs="?", default="best", metavar="RUN", help="which run (default: best)"
    )
    parser.add_argument(
        "--data.data_dir", dest="data_dir", metavar="DIR", help="where its data set is now"
    )
    parser.add_argument(
        "--trainer.default_root_dir", dest="root", metavar="DIR", help="where the runs are"
    )
    options = parser.parse_args(arguments)
    run, _ = runs.find(options.run, runs_root(options.root))
    folder = run.folder / "report"
    figures = draw(run, _data_of(run, options.data_dir))
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("*.png"):
        stale.unlink()
    print(f"report of {run.folder}:")
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        save(figure, path)
        print(f"  {path}")
    return 0


def draw(run: Run, data: DigitData) -> dict[str, Figure]:
    """Draw all that there is of a run, by the name of the picture; say what is missing."""
    pixels, labels = data.test_images.numpy(), data.test_labels.numpy()
    figures = {"samples": plots.samples(pixels, labels)}
    history = read_history(run.folder / METRICS_FILE)
    if history["train/loss"]:
        figures["curves"] = plots.curves(history)
    else:
        print(f"no curves: {run.folder / METRICS_FILE} has no whole epoch")
    if not run.predictions.is_file():
        print(f"no predictions: it has not been tested; {PROGRAM} test {run.reference}")
        return figures
    table = read_predictions(run.predictions)
    count = len(table.true)
    if not np.array_equal(table.true, labels[:count]):
        raise UserError(f"{run.predictions} is not of the test images of {data.name}")
    figures["predictions"] = plots.predictions(pixels[:count], table.true, table.predicted)
    wrong = np.flatnonzero(table.true != table.predicted)
    shown = wrong[:MISTAKES]
    if len(shown):
        rows = -(-len(shown) // 6)
        figures["mistakes"] = plots.predictions(
            pixels[shown], table.true[shown], table.predicted[shown], rows, columns=6
        )
    print(f"{len(wrong):,} of {count:,} test images were read wrongly; {len(shown)} are shown")
    return figures


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    write_atomically(buffer.getvalue(), path)


def _data_of(run: Run, data_dir: str | None) -> DigitData:
    """Load the data set that a run was trained on.

    Raises:
        UserError: the run does not say which it was, it is not here, or it is another one.
    """
    summary = run.summary()
    if summary.get("dataset") not in SOURCES or not run.config.is_file():
        raise UserError(f"{run.folder} was not made by `fit`: it does not say what it is")
    if data_dir is None:
        data_dir = run.read_config().get("data", {}).get("data_dir", "data")
    try:
        data = SOURCES[summary["dataset"]].load(Path(str(data_dir)).expanduser())
    except FileNotFoundError as missing:
        remedy = "say where the data set is: --data.data_dir DATA"
        raise UserError(f"{missing}; {remedy}") from None
    if data.checksum != summary["checksum"]:
        raise UserError(f"the {data.name} in {data_dir} is not the one that the run was trained on")
    return data
