"""Panels, tables and lines on the console."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from torch import nn

from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.errors import PROGRAM
from mnist_lightning.evaluation.significance import mcnemar, spread
from mnist_lightning.evaluation.training_findings import PROBLEMS, judge_training
from mnist_lightning.networks import inspection
from mnist_lightning.networks.registry import REGISTERED
from mnist_lightning.runs.metrics_csv import METRICS_FILE, read_history
from mnist_lightning.runs.predictions_csv import PredictionsTable
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import percent, printable
from mnist_lightning.training.callbacks.run_summary import device_name, network_facts
from mnist_lightning.training.config_loggers import log_location, viewing_commands
from mnist_lightning.training.experiment import Experiment


def make_console() -> Console:
    """Return a console that prints text as it is: `[red]` or `:bug:` in a name is no markup."""
    return Console(markup=False, emoji=False)


class ConsoleReporter:
    """Shows a run on the console while it is trained."""

    def __init__(self) -> None:
        self.console = make_console()

    def show_start(self, experiment: Experiment, trainer: Trainer, run: Run | None) -> None:
        """Show what is trained, on which data and where."""
        data = experiment.data
        show_data_notices(self.console, data)
        network, parameters = network_facts(experiment.model).values()
        name = network["class_path"].rsplit(".", 1)[-1]
        train, val, test = map(len, (data.train_indices, data.val_indices, data.data.test_labels))
        device = device_name(trainer.strategy.root_device)
        self.show_line(f"{name}, {parameters:,} parameters, on {device}")
        if experiment.config["trainer"]["enable_model_summary"] is not False:
            self.show_line(_format_layers(experiment.model.network))
        sizes = f"{train:,} images to train, {val:,} to validate, {test:,} to test"
        self.show_line(f"{data.title}: {sizes}")
        names = [f"limit_{stage}_batches" for stage in ("train", "val", "test")]
        values = {name: getattr(trainer, name) for name in names}  # 1 is one batch, 1.0 is all
        limits = [f"{name} {of}" for name, of in values.items() if isinstance(of, int) or of != 1]
        if limits:
            self.show_line(f"only a part is used: {', '.join(limits)}")
        if data.data.name in data.extra:
            same = f"--data.extra {data.data.name} has no effect: --data.dataset is the same"
            self.show_line(same)
        if val == 0:
            best = "the last checkpoint is saved as the best one"
            self.show_line(f"no validation set (val_size 0): {best}")
        self.show_line(f"run: {run.folder}" if run else "fast_dev_run: nothing will be saved")

    def show_line(self, text: str) -> None:
        """Show one line."""
        show_line(self.console, text)

    def show_interruption(self, run: Run | None, saved: str) -> None:
        """Show what an interrupted run has saved, and how to continue it."""
        self.show_line(f"Interrupted. {saved}")
        if run is not None and run.recent().exists():
            show_next_commands(self.console, [f"{PROGRAM} resume {run.reference}"])


def _format_layers(network: nn.Module) -> str:
    """Format the layers: kind, output shape (-1 is the batch) and number of parameters."""
    rows = [("layer", "output shape", "parameters")]
    for layer in inspection.layers(network):
        rows.append((layer.kind, str(layer.output_shape), f"{layer.parameters:,}"))
    kinds, shapes, counts = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(
        f"  {kind:<{kinds}}  {shape:<{shapes}}  {count:>{counts}}" for kind, shape, count in rows
    )


def show_data_notices(console: Console, data: MNISTDataModule) -> None:
    """Report skipped data; show in a panel that MNIST is not available."""
    if data.reader.skipped is not None:
        show_line(console, data.reader.skipped)
    if data.reader.fallback_reason is None:
        return
    text = (
        "MNIST is not available. This command uses scikit-learn's 1,797 bundled digits: "
        "a smaller and different task. Do not compare the results with results on MNIST.\n\n"
        f"{data.reader.fallback_reason}"
    )
    text, title, style = printable(text, keep="\n"), "This is not MNIST", "bold yellow"
    panel = Panel(text, title=title, title_align="left", border_style=style)
    console.print(panel, highlight=False)


def show_results(
    console: Console,
    facts: dict[str, Any],
    run: Run | None,
    root: Path,
    longer: str | None,
    loggers: Sequence[Logger],
) -> None:
    """Show the results of a run, its directory, and the next commands.

    `longer` is the option with which `resume` extends it; None if it cannot be extended. `loggers`
    are those that the configuration names.
    """
    note = " (bundled; not MNIST)" if facts["dataset"] == "digits" else ""
    rows = [("data set", facts["dataset"] + note)]
    if facts["val/accuracy"] is not None:
        selection = "by val/accuracy" if facts["tested_epoch"] == "best" else "the last epoch"
        rows.append(("best epoch", f"{facts['best_epoch']} of {facts['epochs']}, {selection}"))
        rows.append(("val accuracy", f"{100 * facts['val/accuracy']:.2f} %"))
    elif facts["best_epoch"] is not None:
        reason = "the last epoch: no epoch ended with a validation"
        rows.append(("best epoch", f"{facts['best_epoch']}, {reason}"))
    if "test/accuracy" in facts:
        names = ("test/accuracy", "test/loss", "test/correct", "test/total")
        rows += metric_rows("test", *(facts[name] for name in names))
    rows.append(("training time", f"{facts['fit_seconds']:.1f} s"))
    if run is None:
        show_table(console, "fast_dev_run", rows)
        return
    files = {"run": run.folder, "best checkpoint": run.best, "predictions": run.predictions}
    rows += [(name, str(path)) for name, path in files.items() if path.exists()]
    rows += [(type(logger).__name__, log_location(logger)) for logger in loggers]
    show_table(console, run.folder.name, rows)
    logs = viewing_commands(loggers) if loggers else [f"tensorboard --logdir {root}"]
    commands = _next_commands(run, logs, facts["state"], longer)
    if (run.folder / METRICS_FILE).is_file():
        history = read_history(run.folder / METRICS_FILE, limited=False)
        finding = judge_training(history)
        if finding.kind in PROBLEMS:
            show_line(console, finding.text)
            commands.append(f"{PROGRAM} explain {finding.kind}")
    show_next_commands(console, commands)


def _next_commands(run: Run, logs: Sequence[str], state: str, longer: str | None) -> list[str]:
    """Return the commands that continue after a run; `logs` are those that show its logs."""
    commands = list(logs)
    if run.best.exists():
        # These two import no class that a run names.
        network = run.summary()["network"]["class_path"]
        named = "" if network in REGISTERED else f" --model.network {network}"
        commands.insert(0, f"{PROGRAM} serve {run.reference}{named}  # draw digits for it to read")
        commands += [f"{PROGRAM} report {run.reference}{named}", f"{PROGRAM} test {run.reference}"]
    if run.recent().exists():
        resume = f"{PROGRAM} resume {run.reference}"
        if state != "finished":
            commands.append(resume)
        elif longer is not None:
            commands.append(f"{resume} {longer}")
    return commands


def show_members(
    console: Console, members: Mapping[str, PredictionsTable], ensemble: PredictionsTable
) -> None:
    """Compare an ensemble with its members, by their RUNs, on the same images."""
    columns = ["RUN", "accuracy", "only ensemble correct", "only member correct", "McNemar's p"]
    grid = make_table("members", columns, texts=["RUN"])
    accuracies = []
    for reference, member in members.items():
        accuracies.append(member.correct.mean())
        test = mcnemar(ensemble.correct, member.correct)
        counts = (str(test.only_first), str(test.only_second), f"{test.p:.2g}")
        grid.add_row(printable(reference), f"{100 * accuracies[-1]:.2f} %", *counts)
    console.print(grid, highlight=False)
    mean, together = 100 * sum(accuracies) / len(accuracies), 100 * ensemble.correct.mean()
    show_line(console, f"mean of the members {mean:.2f} %, ensemble {together:.2f} %")


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
    columns = ["seed", "run", "best epoch", "val", "test", "test loss", "s per epoch"]
    grid = make_table("seeds", columns, texts=["run"])
    summaries = [run.summary() for run in finished]
    for run, summary in zip(finished, summaries, strict=True):
        accuracies = (summary.get(name) for name in ("val/accuracy", "test/accuracy"))
        grid.add_row(
            str(summary["seed"]),
            printable(run.reference),
            str(summary.get("best_epoch", "")),
            *(percent(share, missing="") for share in accuracies),
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


def make_table(title: str, columns: Sequence[str], texts: Collection[str]) -> Table:
    """Return an empty table; the columns in `texts` contain text to fold, the others numbers."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in columns:
        if name in texts:
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, justify="right")
    return table


def show_next_commands(console: Console, commands: Sequence[str]) -> None:
    """Show the next commands."""
    show_line(console, "\n  ".join(["next:", *commands]))


def show_line(console: Console, text: str) -> None:
    """Show one line without wrapping it."""
    console.print(printable(text, keep="\n"), highlight=False, markup=False, soft_wrap=True)
