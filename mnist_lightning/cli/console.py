"""Panels, tables and lines on the console."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from torch import nn

from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.errors import PROGRAM
from mnist_lightning.evaluation.metrics import McNemar, spread
from mnist_lightning.networks import inspection
from mnist_lightning.runs.metrics_csv import PredictionsTable
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import printable
from mnist_lightning.training.callbacks.prediction_collector import PredictionCollector
from mnist_lightning.training.callbacks.run_summary import device_name, network_facts
from mnist_lightning.training.lightning_module import DigitClassifier


def make_console() -> Console:
    """Return a console that prints text as it is: `[red]` or `:bug:` in a name is no markup."""
    return Console(markup=False, emoji=False)


def show_start(
    console: Console,
    model: DigitClassifier,
    data: MNISTDataModule,
    trainer: Trainer,
    run: Run | None,
    summary: bool,
) -> None:
    """Show what is trained (each layer if `summary`), on which data and where."""
    show_data_notices(console, data)
    network = network_facts(model)
    name = network["network"]["class_path"].rsplit(".", 1)[-1]
    sizes = (len(data.train_indices), len(data.val_indices), len(data.data.test_labels))
    device = device_name(trainer.strategy.root_device)
    show_line(console, f"{name}, {network['parameters']:,} parameters, on {device}")
    if network["network"]["init_args"] is None:
        show_line(
            console,
            f"{name} does not store its arguments as attributes (self.width = width): "
            "predict, serve, report and export cannot rebuild it",
        )
    if summary:
        show_layers(console, model.network)
    show_line(
        console,
        f"{data.title}: {sizes[0]:,} images to train, {sizes[1]:,} to validate, "
        f"{sizes[2]:,} to test",
    )
    if data.data.name in data.extra:
        show_line(console, f"--data.extra {data.data.name} adds nothing: it is the data set itself")
    if sizes[1] == 0:
        show_line(
            console, "no validation set (val_size 0): the best checkpoint will be the last one"
        )
    show_line(console, f"run: {run.folder}" if run else "fast_dev_run: nothing will be saved")


def show_layers(console: Console, network: nn.Module) -> None:
    """Show the layers: kind, output shape (-1 is the batch) and number of parameters."""
    rows = [("layer", "output shape", "parameters")]
    rows += [
        (layer.kind, str(layer.output_shape), f"{layer.parameters:,}")
        for layer in inspection.layers(network)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for kind, shape, count in rows:
        show_line(console, f"  {kind:<{widths[0]}}  {shape:<{widths[1]}}  {count:>{widths[2]}}")


def show_data_notices(console: Console, data: MNISTDataModule) -> None:
    """Report skipped data; show in a panel that MNIST is not available."""
    if data.skipped is not None:
        show_line(console, data.skipped)
    if data.fallback_reason is None:
        return
    text = (
        "MNIST is not available. This command uses scikit-learn's 1,797 bundled digits: "
        "a smaller and different task. Its results cannot be compared with those on MNIST.\n\n"
        f"{data.fallback_reason}"
    )
    console.print(
        Panel(
            printable(text, keep="\n"),
            title="This is not MNIST",
            title_align="left",
            border_style="bold yellow",
        ),
        highlight=False,
    )


def show_interruption(console: Console, run: Run | None, saved: str) -> None:
    """Show what an interrupted run has saved, and how to continue it."""
    show_line(console, f"Interrupted. {saved}")
    if run is not None and run.recent().exists():
        show_next_commands(console, [f"{PROGRAM} resume {run.reference}"])


def show_results(
    console: Console, facts: dict[str, Any], run: Run | None, root: Path, longer: str | None
) -> None:
    """Show the results of a run, its directory, and the next commands.

    `longer` is the option with which `resume` extends it; None if it cannot be extended.
    """
    note = " (bundled; not MNIST)" if facts["dataset"] == "digits" else ""
    rows = [("data set", facts["dataset"] + note)]
    if facts["val/accuracy"] is not None:
        rows.append(("best epoch", f"{facts['best_epoch']} of {facts['epochs']}, by val/accuracy"))
        rows.append(("val accuracy", f"{100 * facts['val/accuracy']:.2f} %"))
    elif facts["best_epoch"] is not None:
        rows.append(
            (
                "best epoch",
                f"{facts['best_epoch']}, the last: no epoch was validated at its end",
            )
        )
    if "test/accuracy" in facts:
        names = ("test/accuracy", "test/loss", "test/correct", "test/total")
        rows += metric_rows("test", *(facts[name] for name in names))
    rows.append(("training time", f"{facts['fit_seconds']:.1f} s"))
    if run is None:
        show_table(console, "fast_dev_run", rows)
        return
    rows.append(("run", str(run.folder)))
    if run.best.exists():
        rows.append(("best checkpoint", str(run.best)))
    if run.predictions.exists():
        rows.append(("predictions", str(run.predictions)))
    show_table(console, run.folder.name, rows)
    commands = [f"tensorboard --logdir {root}"]
    if run.best.exists():
        commands += [f"{PROGRAM} report {run.reference}", f"{PROGRAM} test {run.reference}"]
    if run.recent().exists():
        resume = f"{PROGRAM} resume {run.reference}"
        if facts["state"] != "finished":
            commands.append(resume)
        elif longer is not None:
            commands.append(f"{resume} {longer}")
    show_next_commands(console, commands)


def show_evaluation(
    console: Console,
    command: str,
    checkpoint: str,
    dataset: str,
    trainer: Trainer,
    predictions: PredictionCollector,
    saved: Path | None,
) -> None:
    """Show the results of an evaluation; `saved` is the file of its predictions, if any."""
    stage = "val" if command == "validate" else "test"
    accuracy, loss = (float(trainer.callback_metrics[f"{stage}/{n}"]) for n in ("accuracy", "loss"))
    rows = [("data set", dataset), ("checkpoint", checkpoint)]
    rows += metric_rows(stage, accuracy, loss, predictions.correct, predictions.total)
    if saved is not None:
        rows.append(("predictions", str(saved)))
    show_table(console, command, rows)


def show_members(
    console: Console, rows: Sequence[tuple[str, float, McNemar]], ensemble: float
) -> None:
    """Show the members of an ensemble: RUN, accuracy, and McNemar's test against the ensemble."""
    grid = Table(title="members", title_justify="left", title_style="bold")
    grid.add_column("RUN", overflow="fold")
    for name in ("accuracy", "only ensemble correct", "only member correct", "McNemar's p"):
        grid.add_column(name, justify="right")
    for reference, accuracy, test in rows:
        counts = (str(test.only_first), str(test.only_second), f"{test.p:.2g}")
        grid.add_row(printable(reference), f"{100 * accuracy:.2f} %", *counts)
    console.print(grid, highlight=False)
    mean = sum(accuracy for _, accuracy, _ in rows) / len(rows)
    show_line(console, f"mean of the members {100 * mean:.2f} %, ensemble {100 * ensemble:.2f} %")


def show_predictions(table: PredictionsTable) -> None:
    """Show the true and the predicted label of each image, one per line."""
    width = len(str(len(table.true)))
    pairs = zip(table.true.tolist(), table.predicted.tolist(), strict=True)
    for index, (true, predicted) in enumerate(pairs):
        wrong = "" if true == predicted else "  wrong"
        print(f"{index:{width}}  true {true}  predicted {predicted}{wrong}")


def metric_rows(
    stage: str, accuracy: float, loss: float, correct: int, total: int
) -> list[tuple[str, str]]:
    """Return rows of a table: accuracy, loss, and the number of correct images."""
    return [
        (f"{stage} accuracy", f"{100 * accuracy:.2f} %"),
        (f"{stage} loss", f"{loss:.4f}"),
        ("correct", f"{correct:,} of {total:,}"),
    ]


def show_seeds(console: Console, finished: Sequence[Run]) -> None:
    """Show the results of several seeds, and their spread."""
    grid = Table(title="seeds", title_justify="left", title_style="bold")
    grid.add_column("seed", justify="right")
    grid.add_column("run", overflow="fold")
    for name in ("best epoch", "val", "test", "test loss", "s per epoch"):
        grid.add_column(name, justify="right")
    summaries = [run.summary() for run in finished]
    for run, summary in zip(finished, summaries, strict=True):
        values = (summary.get(name) for name in ("val/accuracy", "test/accuracy"))
        grid.add_row(
            str(summary["seed"]),
            printable(run.reference),
            str(summary.get("best_epoch", "")),
            *("" if value is None else f"{100 * value:.2f} %" for value in values),
            f"{summary['test/loss']:.4f}" if "test/loss" in summary else "",
            f"{summary['epoch_seconds']:.1f}" if "epoch_seconds" in summary else "",
        )
    if finished:
        console.print(grid, highlight=False)
    for name in ("val/accuracy", "test/accuracy"):
        known = [100 * each[name] for each in summaries if each.get(name) is not None]
        if known:
            show_line(console, f"{name.replace('/', ' ')}: {_spread(known)}")


def _spread(values: Sequence[float]) -> str:
    result = spread(values)
    if len(values) == 1:
        return f"{result.mean:.2f} % with one seed; the spread is unknown"
    return (
        f"{result.mean:.2f} ± {result.std:.2f} % "
        f"(mean ± standard deviation of {len(values)} seeds), "
        f"95 % interval of the mean {max(result.low, 0):.2f} to {min(result.high, 100):.2f} %"
    )


def show_table(console: Console, title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Show names and values as a table; wrap long values."""
    show_line(console, f"{title}:")
    grid = Table(show_header=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, printable(value))
    console.print(grid, highlight=False)


def show_next_commands(console: Console, commands: Sequence[str]) -> None:
    """Show the next commands."""
    show_line(console, "next:")
    for command in commands:
        show_line(console, f"  {command}")


def show_line(console: Console, text: str) -> None:
    """Show one line without wrapping it."""
    console.print(printable(text, keep="\n"), highlight=False, markup=False, soft_wrap=True)
