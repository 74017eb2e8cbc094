"""Sweeps over config files and seeds: their points, and the table of their results."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState

from mnist_lightning.cli import console
from mnist_lightning.cli.parser import find_file
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.evaluation.significance import spread
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import plural, printable, shorten
from mnist_lightning.tuning import results
from mnist_lightning.tuning.search_space import Range, SearchSpace
from mnist_lightning.tuning.trial_runner import Plan, claimed_run

MAX_NAME_CHARS = 80
SEED = "seed_everything"


def make_space(configs: Sequence[str], seeds: Sequence[int] | None) -> SearchSpace:
    """Return the pairs of a config and a seed; the configs alternate fastest.

    Args:
        configs: paths of files, or configs as JSON, as `--config` accepts them.
        seeds: None to use the seed of each config.

    Raises:
        UserError: a file does not exist, or is given twice.
    """
    for config in configs:
        if not config.startswith("{"):
            find_file("--configs", config)
        if configs.count(config) > 1:
            raise UserError(f"--configs: {config} is given twice; give each file once", status=2)
    ranges = {"config": Range("choice", tuple(configs))}
    if not seeds:
        return SearchSpace(ranges, [{"config": config} for config in configs])
    # The range of all seeds: the same sweep may continue with other ones.
    ranges[SEED] = Range("int", (0, 2**32 - 1))
    return SearchSpace(ranges, [{"config": c, SEED: seed} for seed in seeds for c in configs])


def labels(configs: Sequence[str]) -> dict[str, str]:
    """Return a short name of each config: the name of its file, unless two are equal."""
    names = [shorten(c, 40) if c.startswith("{") else Path(c).stem for c in configs]
    return dict(zip(configs, names if len({*names}) == len(names) else configs, strict=True))


def default_name(configs: Sequence[str]) -> str:
    """Return the name of a sweep over configs."""
    joined = re.sub(r"[^\w.-]+", "_", "-".join(labels(configs).values()))
    return joined.lstrip(".-")[:MAX_NAME_CHARS]


class _Row(NamedTuple):
    """The results of a config: its number of seeds, the trials started, and the runs finished."""

    name: str
    total: int
    trials: Sequence[FrozenTrial]
    runs: Sequence[Run]

    def values(self, fact: str) -> list[float]:
        """Return a fact of the summaries of all runs that have it."""
        found = [run.summary().get(fact) for run in self.runs]
        return [value for value in found if value is not None]

    @property
    def order(self) -> float:
        """The mean validation accuracy, negative: the highest comes first."""
        values = self.values("val/accuracy")
        return -sum(values) / len(values) if values else 0.0


def show_results(study: optuna.Study, plan: Plan) -> int:
    """Show the results of each config, those with the highest val/accuracy first.

    Returns:
        The exit status: 1 if a run failed.
    """
    out = console.make_console()
    trials = results.started_trials(study, plan.space)
    rows = sorted(_rows(trials, plan), key=lambda row: row.order)
    columns = ["config", "seeds", "val %", "test %", "s per epoch", "runs"]
    table = console.make_table("configs", columns, texts=["config", "runs"])
    for column in table.columns[1:5]:
        column.no_wrap = True
    for row in rows:
        seconds = row.values("epoch_seconds")
        table.add_row(
            printable(row.name),
            str(len(row.runs)) + (f" of {row.total}" if len(row.runs) < row.total else ""),
            _accuracy(row.values("val/accuracy")),
            _accuracy(row.values("test/accuracy")),
            f"{sum(seconds) / len(seconds):.2f}" if seconds else "",
            printable(", ".join(run.folder.name.removeprefix("version_") for run in row.runs)),
        )
    out.print(table, highlight=False)
    console.show_line(out, "mean ± standard deviation over the seeds, in the order of val")
    console.show_line(out, f"runs: {plan.root}/version_N")
    failures = _failures(rows)
    for line in failures:
        console.show_line(out, line)
    if failures:
        fix = "Repeat the command to try the failed runs again; if you change a file, give another"
        console.show_line(out, f"See {plan.folder}/trial_*.log. {fix} --name.")
    finished = sum(trial.state == TrialState.COMPLETE for trial in trials)
    if lost := finished - sum(len(row.runs) for row in rows):
        problem = f"not in the table: {plural(lost, 'run')}, deleted or on another machine"
        console.show_line(out, f"{problem}. To train again, give another --name.")
    firsts = [row.runs[0].reference for row in rows if row.runs]
    if len(firsts) > 1:
        console.show_next_commands(out, [f"{PROGRAM} runs {firsts[0]} {firsts[1]}"])
    return 1 if failures else 0


def _rows(trials: Sequence[FrozenTrial], plan: Plan) -> list[_Row]:
    rows, points = [], plan.space.points or ()
    for config, name in labels(plan.space.ranges["config"].values).items():
        count = sum(point["config"] == config for point in points)
        own = [trial for trial in trials if trial.params.get("config") == config]
        own.sort(key=lambda trial: trial.params.get(SEED, 0))
        finished = [trial for trial in own if trial.state == TrialState.COMPLETE]
        runs = [run for trial in finished if (run := claimed_run(plan, trial)) is not None]
        rows.append(_Row(name, count, own, runs))
    return rows


def _accuracy(values: Sequence[float]) -> str:
    """Format accuracies in percent, as mean ± standard deviation."""
    if not values:
        return ""
    result = spread([100 * value for value in values])
    return f"{result.mean:.2f}" + (f" ± {result.std:.2f}" if len(values) > 1 else "")


def _failures(rows: Sequence[_Row]) -> list[str]:
    """Return a line for each config and each reason for which its trials failed."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for trial in row.trials:
            if trial.state == TrialState.FAIL:
                reason = str(trial.user_attrs.get("error", "unknown"))
                seed: Any = trial.params.get(SEED)
                seeds.setdefault((row.name, reason), []).append("" if seed is None else str(seed))
    return [
        f"failed: {name}{f', seed {text}' if (text := ', '.join(each)) else ''}: {shorten(reason)}"
        for (name, reason), each in seeds.items()
    ]
