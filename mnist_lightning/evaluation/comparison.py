"""Compare runs: their options, results, and tests of significance."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.evaluation.significance import mcnemar, spread
from mnist_lightning.evaluation.training_findings import TrainingFinding, judge_training
from mnist_lightning.runs import metrics_csv, predictions_csv
from mnist_lightning.runs.config import reproducibility_key
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.runs.summary_table import RunRow, read_row


class Comparison(NamedTuple):
    """What distinguishes runs.

    Attributes:
        rows: the results of each run.
        settings: the options that differ, by dotted names: the value of each run.
        tests: McNemar's test of each pair of runs: their names, and the fields of `McNemar`.
        groups: the runs that differ only in their seed: their names, and the mean and deviation of
            their `val` and `test` accuracy.
        histories: the metrics of the epochs of each run.
        trainings: what the curves of each run show; only for a run with curves.
        missing: what could not be compared, with the reasons.
    """

    rows: list[RunRow]
    settings: dict[str, dict[str, Any]]
    tests: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    histories: dict[str, dict[str, list[float]]]
    trainings: dict[str, TrainingFinding]
    missing: list[str]


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare runs, in the given order."""
    named = _named(runs)
    rows = [read_row(run)._replace(run=name) for name, run in named.items()]
    missing: list[str] = []
    configs = _readable(named, _config, missing)
    differing = _differing(list(configs.values()))
    tests = _pairwise_tests(_readable(named, _labels, missing), missing)
    histories = _readable(named, _history, missing)
    trainings = {
        name: judge_training(history)
        for name, history in histories.items()
        if history["train/loss"]
    }
    settings = {name: dict(zip(configs, values, strict=True)) for name, values in differing.items()}
    groups = _seed_groups(rows, configs)
    return Comparison(rows, settings, tests, groups, histories, trainings, missing)


def _named(runs: Sequence[Run]) -> dict[str, Run]:
    """Return runs by the names of their directories; by full paths if two names are equal."""
    names = [run.folder.name for run in runs]
    unique = len(set(names)) == len(names)
    return dict(zip(names if unique else [str(run.folder) for run in runs], runs, strict=True))


T = TypeVar("T")


def _readable(
    named: Mapping[str, Run], read: Callable[[Run], T], missing: list[str]
) -> dict[str, T]:
    """Read something of each run; add the errors to `missing`."""
    contents = {}
    for name, run in named.items():
        try:
            contents[name] = read(run)
        except UserError as error:
            missing.append(str(error))
    return contents


def _config(run: Run) -> dict[str, Any]:
    """Return the settings of a run, with the origins of its initial weights and its teacher."""
    if not run.config.is_file():
        raise UserError(f"{run.folder} has no config.yaml: its settings are not compared")
    summary = run.summary()
    return run.read_config() | {name: summary.get(name) for name in ("init_from", "teacher")}


def _labels(run: Run) -> predictions_csv.LabelsTable:
    if not run.predictions.is_file():
        fix = "" if run.is_pretrained else f": {PROGRAM} test {run.reference}"
        raise UserError(f"{run.folder} has no predictions.csv for McNemar's test{fix}")
    return predictions_csv.read_labels(run.predictions)


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
    tables: Mapping[str, predictions_csv.LabelsTable], missing: list[str]
) -> list[dict[str, Any]]:
    """Apply McNemar's test to each pair of runs; add those that cannot be compared to `missing`."""
    tests = []
    for (first, left), (second, right) in combinations(tables.items(), 2):
        if np.array_equal(left.true, right.true):
            result = mcnemar(left.correct, right.correct)
            tests.append({"first": first, "second": second, **result._asdict()})
        else:
            missing.append(f"{first} and {second} were tested on different images; test both again")
    return tests


def _seed_groups(
    rows: Sequence[RunRow], configs: Mapping[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Group the runs that differ only in their seed."""
    rows_by_key: dict[str, list[RunRow]] = {}
    for row in rows:
        if configs.get(row.run):
            key = repr(sorted(reproducibility_key(configs[row.run]).items()))
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
