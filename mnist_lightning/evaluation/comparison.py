"""Compare runs: different options, results, and tests of significance."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mnist_lightning.errors import UserError
from mnist_lightning.evaluation import plots
from mnist_lightning.evaluation.significance import mcnemar, spread
from mnist_lightning.files import write_atomically
from mnist_lightning.runs import metrics_csv
from mnist_lightning.runs.config import reproducibility_key
from mnist_lightning.runs.metrics_csv import PredictionsTable
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.runs.summary_table import RunRow, format_table, read_row
from mnist_lightning.text import printable, say

SIGNIFICANT = 0.05


def show(runs: Sequence[Run], as_json: bool, png: Path | None) -> int:
    """Print a comparison; save a figure of the curves if `png` is a path."""
    if png is not None and not png.parent.is_dir():
        raise UserError(f"cannot save {png}: the directory {png.parent} does not exist", status=2)
    named = _named(runs)
    rows = [read_row(run)._replace(run=name) for name, run in named.items()]
    warnings: list[str] = []
    settings = _readable(named, _settings, warnings)
    differing = _differing([settings.get(name, {}) for name in named])
    tests = _pairwise_tests(_readable(named, _predictions, warnings), warnings)
    groups = _seed_groups(rows, settings)
    if png is not None:
        figure = plots.overlay_curves(_readable(named, _history, warnings))
        write_atomically(plots.png(figure), png)
    if as_json:
        facts = {
            "runs": [row._asdict() for row in rows],
            "settings": {
                name: dict(zip(named, values, strict=True)) for name, values in differing.items()
            },
            "mcnemar": tests,
            "pools": groups,
            "missing": warnings,
        }
        say(json.dumps(facts, indent=2))
        return 0
    say(format_table(rows))
    say("\nsettings that differ:" if differing else "\nall settings are equal")
    for name, values in differing.items():
        say(f"  {printable(name)}")
        for value, names in _runs_by_value(values, rows).items():
            say(f"    {printable(', '.join(names))}: {printable(value)}")
    say()
    lines = [_test_line(**test) for test in tests]
    for line in [*lines, *warnings, *(_group_line(**group) for group in groups)]:
        say(printable(line))
    if png is not None:
        say(f"curves: {png}")
    return 0


def _runs_by_value(values: Sequence[Any], rows: Sequence[RunRow]) -> dict[str, list[str]]:
    """Return the names of the runs that have each value."""
    groups: dict[str, list[str]] = {}
    for value, row in zip(values, rows, strict=True):
        groups.setdefault(_as_text(value), []).append(_short(row.run))
    return groups


def _as_text(value: Any) -> str:
    """Format a setting as text; a class with arguments as a call."""
    if isinstance(value, list):
        return f"[{', '.join(map(_as_text, value))}]"
    if isinstance(value, dict) and "class_path" in value:
        arguments = value.get("init_args") or {}
        if not isinstance(arguments, dict):
            return str(value)
        inner = ", ".join(f"{name}={_as_text(argument)}" for name, argument in arguments.items())
        return f"{str(value['class_path']).rsplit('.', 1)[-1]}({inner})"
    return str(value)


def _short(name: str) -> str:
    return name.removeprefix("version_")


def _group_line(runs: Sequence[str], mean: dict[str, float], std: dict[str, float]) -> str:
    figures = [f"{name} {100 * mean[name]:.2f} ± {100 * std[name]:.2f} %" for name in mean]
    return (
        f"{', '.join(map(_short, runs))} differ only in their seed: {', '.join(figures)} "
        "(mean ± standard deviation)"
    )


def _named(runs: Sequence[Run]) -> dict[str, Run]:
    """Return runs by the names of their directories; by full paths if two names are equal."""
    names = [run.folder.name for run in runs]
    unique = len(set(names)) == len(names)
    return dict(zip(names if unique else [str(run.folder) for run in runs], runs, strict=True))


T = TypeVar("T")


def _readable(
    named: Mapping[str, Run], read: Callable[[Run], T], warnings: list[str]
) -> dict[str, T]:
    """Read something of each run; add the errors to `warnings`."""
    contents = {}
    for name, run in named.items():
        try:
            contents[name] = read(run)
        except UserError as error:
            warnings.append(str(error))
    return contents


def _settings(run: Run) -> dict[str, Any]:
    return run.read_config() if run.config.is_file() else {}


def _predictions(run: Run) -> PredictionsTable:
    if not run.predictions.is_file():
        raise UserError(f"{run.folder} was not tested and cannot be compared: run test first")
    return metrics_csv.read_predictions(run.predictions)


def _history(run: Run) -> dict[str, list[float]]:
    return metrics_csv.read_history(run.folder / metrics_csv.METRICS_FILE)


def _differing(settings: Sequence[Any], prefix: str = "") -> dict[str, list[Any]]:
    """Return the settings that differ, by dotted names; a different class is one setting."""
    differing: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for section in settings for name in section):
        values = [section.get(name) for section in settings]
        if all(value == values[0] for value in values):
            continue
        if all(isinstance(value, dict) for value in values) and not _classes_differ(values):
            inner = "" if name == "init_args" else f"{name}."
            differing |= _differing(values, prefix + inner)
        else:
            differing[f"{prefix}{name}"] = values
    return differing


def _classes_differ(values: Sequence[Mapping[str, Any]]) -> bool:
    return len({str(value.get("class_path")) for value in values}) > 1


def _pairwise_tests(
    tables: Mapping[str, PredictionsTable], warnings: list[str]
) -> list[dict[str, Any]]:
    """Apply McNemar's test to each pair of runs: their names and the fields of `McNemar`.

    Add the pairs that cannot be compared to `warnings`.
    """
    tests = []
    for (first, left), (second, right) in combinations(tables.items(), 2):
        if np.array_equal(left.true, right.true):
            result = mcnemar(left.predicted == left.true, right.predicted == right.true)
            tests.append({"first": first, "second": second, **result._asdict()})
        else:
            warnings.append(f"{first} and {second} were tested on different images")
    return tests


def _test_line(first: str, second: str, only_first: int, only_second: int, p: float) -> str:
    first, second = _short(first), _short(second)
    better = first if only_first > only_second else second
    verdict = f"{better} is better" if p < SIGNIFICANT else "not significant"
    return (
        f"{first} against {second}: only {first} is correct on {only_first:,} test images, "
        f"only {second} on {only_second:,}; McNemar's p = {p:.2g}: {verdict}"
    )


def _seed_groups(
    rows: Sequence[RunRow], settings: Mapping[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Group the runs that differ only in their seed.

    Return the names of each group, and mean and deviation of the `val` and `test` accuracy.
    """
    rows_by_key: dict[str, list[RunRow]] = {}
    for row in rows:
        if settings.get(row.run):
            key = repr(sorted(reproducibility_key(settings[row.run]).items()))
            rows_by_key.setdefault(key, []).append(row)
    groups = []
    for group in rows_by_key.values():
        if len({row.seed for row in group}) == len(group) > 1:
            pool: dict[str, Any] = {"runs": [row.run for row in group], "mean": {}, "std": {}}
            for stage in ("val", "test"):
                values = [getattr(row, f"{stage}_accuracy") for row in group]
                if None not in values:
                    pool["mean"][stage], pool["std"][stage], *_ = spread(values)
            groups.append(pool)
    return groups
