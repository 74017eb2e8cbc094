"""Compare runs: different options, results, and tests of significance."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mnist_lightning.errors import UserError
from mnist_lightning.evaluation import plots
from mnist_lightning.evaluation.metrics import McNemar, mcnemar, spread
from mnist_lightning.files import write_atomically
from mnist_lightning.runs.config import reproducibility_key
from mnist_lightning.runs.metrics_csv import (
    METRICS_FILE,
    PredictionsTable,
    read_history,
    read_predictions,
)
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.runs.summary_table import Standing, standing, table
from mnist_lightning.text import printable, say

SIGNIFICANT = 0.05


class Duel(NamedTuple):
    """Two runs on the same test images."""

    first: str
    second: str
    result: McNemar


class Pool(NamedTuple):
    """Runs that differ in their seed only; a share each, of validation or test."""

    runs: list[str]
    mean: dict[str, float]
    std: dict[str, float]


def show(chosen: Sequence[Run], as_json: bool, png: Path | None) -> int:
    """Print a comparison, and draw the curves if there is a place for them."""
    if png is not None and not png.parent.is_dir():
        raise UserError(f"there is no folder {png.parent} to put {png.name} in", status=2)
    named = _named(chosen)
    rows = [standing(run)._replace(run=name) for name, run in named.items()]
    silent: list[str] = []
    settings = _readable(named, _settings, silent)
    differing = _differing([settings.get(name, {}) for name in named])
    duels = _duels(_readable(named, _predictions, silent), silent)
    pools = _pools(rows, settings)
    if png is not None:
        figure = plots.overlaid(_readable(named, _history, silent))
        write_atomically(plots.png(figure), png)
    if as_json:
        facts = {
            "runs": [each._asdict() for each in rows],
            "settings": {
                name: dict(zip([each.run for each in rows], values, strict=True))
                for name, values in differing.items()
            },
            "mcnemar": [
                {"first": duel.first, "second": duel.second, **duel.result._asdict()}
                for duel in duels
            ],
            "pools": [pool._asdict() for pool in pools],
            "missing": silent,
        }
        say(json.dumps(facts, indent=2))
        return 0
    say(table(rows))
    say("\nsettings that differ:" if differing else "\nno setting differs")
    for name, values in differing.items():
        say(f"  {printable(name)}")
        for value, of in _alike(values, rows).items():
            say(f"    {printable(', '.join(of))}: {printable(value)}")
    say()
    for line in [*map(_verdict, duels), *silent, *map(_spread, pools)]:
        say(printable(line))
    if png is not None:
        say(f"curves: {png}")
    return 0


def _alike(values: Sequence[Any], rows: Sequence[Standing]) -> dict[str, list[str]]:
    """Collect the runs that have a value."""
    groups: dict[str, list[str]] = {}
    for value, each in zip(values, rows, strict=True):
        groups.setdefault(_said(value), []).append(_short(each.run))
    return groups


def _said(value: Any) -> str:
    """A setting as people read it; a class with its arguments as a call."""
    if isinstance(value, list):
        return f"[{', '.join(map(_said, value))}]"
    if isinstance(value, dict) and "class_path" in value:
        arguments = value.get("init_args") or {}
        if not isinstance(arguments, dict):
            return str(value)
        inner = ", ".join(f"{name}={_said(of)}" for name, of in arguments.items())
        return f"{str(value['class_path']).rsplit('.', 1)[-1]}({inner})"
    return str(value)


def _short(name: str) -> str:
    return name.removeprefix("version_")


def _spread(pool: Pool) -> str:
    figures = ", ".join(
        f"{name} {100 * mean:.2f} ± {100 * pool.std[name]:.2f} %"
        for name, mean in pool.mean.items()
    )
    runs = ", ".join(map(_short, pool.runs))
    return f"{runs} differ in their seed only: {figures} (mean ± standard deviation)"


def _named(chosen: Sequence[Run]) -> dict[str, Run]:
    """Runs by the names of their folders; by their whole paths where two are called alike."""
    names = [run.folder.name for run in chosen]
    unique = len(set(names)) == len(names)
    return dict(zip(names if unique else [str(run.folder) for run in chosen], chosen, strict=True))


T = TypeVar("T")


def _readable(
    named: Mapping[str, Run], read: Callable[[Run], T | None], silent: list[str]
) -> dict[str, T]:
    """What can be read of each run; add to `silent` what cannot."""
    found = {}
    for name, run in named.items():
        try:
            content = read(run)
        except UserError as error:
            silent.append(str(error))
            continue
        if content is not None:
            found[name] = content
    return found


def _settings(run: Run) -> dict[str, Any] | None:
    return run.read_config() if run.config.is_file() else None


def _predictions(run: Run) -> PredictionsTable:
    if not run.predictions.is_file():
        raise UserError(f"{run.folder} was not tested: nothing to hold against the others")
    return read_predictions(run.predictions)


def _history(run: Run) -> dict[str, list[float]]:
    return read_history(run.folder / METRICS_FILE)


def _differing(settings: Sequence[Any], prefix: str = "") -> dict[str, list[Any]]:
    """Find the settings that differ, by their dotted names; classes that differ stay whole."""
    found: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for each in settings for name in each):
        values = [each.get(name) for each in settings]
        if all(one == values[0] for one in values):
            continue
        if all(isinstance(one, dict) for one in values) and not _of_several_classes(values):
            inner = "" if name == "init_args" else f"{name}."
            found |= _differing(values, prefix + inner)
        else:
            found[f"{prefix}{name}"] = values
    return found


def _of_several_classes(values: Sequence[Mapping[str, Any]]) -> bool:
    return len({str(one.get("class_path")) for one in values}) > 1


def _duels(tables: Mapping[str, PredictionsTable], silent: list[str]) -> list[Duel]:
    """Hold each two runs' predictions against each other; add to `silent` which cannot be."""
    duels = []
    for (first, one), (second, other) in combinations(tables.items(), 2):
        if np.array_equal(one.true, other.true):
            duels.append(
                Duel(
                    first,
                    second,
                    mcnemar(one.predicted == one.true, other.predicted == other.true),
                )
            )
        else:
            silent.append(f"{first} and {second} were tested on other images")
    return duels


def _verdict(duel: Duel) -> str:
    of = duel.result
    first, second = _short(duel.first), _short(duel.second)
    better = first if of.only_first > of.only_second else second
    verdict = f"{better} is better" if of.p < SIGNIFICANT else "no more than chance"
    return (
        f"{first} against {second}: {of.only_first:,} test images are read rightly by {first} "
        f"alone, {of.only_second:,} by {second} alone; McNemar's p = {of.p:.2g}: {verdict}"
    )


def _pools(rows: Sequence[Standing], settings: Mapping[str, dict[str, Any]]) -> list[Pool]:
    """Find the runs of one experiment with several seeds."""
    groups: dict[str, list[Standing]] = {}
    for each in rows:
        if each.run in settings:
            same = json.dumps(reproducibility_key(settings[each.run]), sort_keys=True, default=str)
            groups.setdefault(same, []).append(each)
    pools = []
    for group in groups.values():
        if len({each.seed for each in group}) == len(group) > 1:
            columns = {
                "val": [each.val_accuracy for each in group],
                "test": [each.test_accuracy for each in group],
            }
            spreads = {
                name: spread([value for value in values if value is not None])
                for name, values in columns.items()
                if None not in values
            }
            pools.append(
                Pool(
                    [each.run for each in group],
                    {name: of.mean for name, of in spreads.items()},
                    {name: of.std for name, of in spreads.items()},
                )
            )
    return pools
