"""Some runs beside each other: what differs, what came out, and whether it is more than chance."""

import io
import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mnist_lightning.errors import UserError
from mnist_lightning.evaluation import plots
from mnist_lightning.evaluation.metrics import McNemar, mcnemar, spread
from mnist_lightning.files import write_atomically
from mnist_lightning.options import experiment
from mnist_lightning.runs import Run
from mnist_lightning.standings import Standing, standing, table
from mnist_lightning.tables import METRICS_FILE, read_history, read_predictions

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
    rows = [standing(run) for run in chosen]
    settings = [_settings(run) for run in chosen]
    differing = _differing(settings)
    duels, silent = _duels(chosen)
    pools = _pools(rows, settings)
    if png is not None:
        _draw(chosen, png)
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
        }
        print(json.dumps(facts, indent=2))
        return 0
    print(table(rows))
    print("\nsettings that differ:" if differing else "\nno setting differs")
    for name, values in differing.items():
        print(f"  {name}")
        for value, of in _alike(values, rows).items():
            print(f"    {', '.join(of)}: {value}")
    print()
    for line in [*map(_verdict, duels), *silent, *map(_spread, pools)]:
        print(line)
    if png is not None:
        print(f"curves: {png}")
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
        inner = ", ".join(f"{name}={_said(of)}" for name, of in arguments.items())
        return f"{value['class_path'].rsplit('.', 1)[-1]}({inner})"
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


def _settings(run: Run) -> dict[str, Any]:
    """A run's configuration; empty where it has none."""
    return run.read_config() if run.config.is_file() else {}


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


def _duels(chosen: Sequence[Run]) -> tuple[list[Duel], list[str]]:
    """Hold each two runs' predictions against each other; say which cannot be."""
    tables, silent = {}, []
    for run in chosen:
        if run.predictions.is_file():
            tables[run.folder.name] = read_predictions(run.predictions)
        else:
            silent.append(f"{run.folder.name} was not tested: nothing to hold against the others")
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
    return duels, silent


def _verdict(duel: Duel) -> str:
    of = duel.result
    first, second = _short(duel.first), _short(duel.second)
    better = first if of.only_first > of.only_second else second
    verdict = f"{better} is better" if of.p < SIGNIFICANT else "no more than chance"
    return (
        f"{first} against {second}: {of.only_first:,} test images are read rightly by {first} "
        f"alone, {of.only_second:,} by {second} alone; McNemar's p = {of.p:.2g}: {verdict}"
    )


def _pools(rows: Sequence[Standing], settings: Sequence[dict[str, Any]]) -> list[Pool]:
    """Find the runs of one experiment with several seeds."""
    groups: dict[str, list[Standing]] = {}
    for each, config in zip(rows, settings, strict=True):
        if config:
            same = json.dumps(experiment(config), sort_keys=True, default=str)
            groups.setdefault(same, []).append(each)
    pools = []
    for group in groups.values():
        if len(group) > 1:
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


def _draw(chosen: Sequence[Run], path: Path) -> None:
    histories = {run.folder.name: read_history(run.folder / METRICS_FILE) for run in chosen}
    buffer = io.BytesIO()
    plots.overlaid(histories).savefig(buffer, format="png", dpi=150)
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} to put {path.name} in", status=2)
    write_atomically(buffer.getvalue(), path)
