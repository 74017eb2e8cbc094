"""The search space of a sweep: options and their allowed values."""

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from optuna import Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from mnist_lightning.errors import UserError
from mnist_lightning.files import read_yaml

KINDS = dict.fromkeys(("uniform", "log_uniform", "int", "log_int"), "[low, high]")
KINDS["choice"] = "[value, value, …]"
MAX_COMBINATIONS = 10_000


class Range(NamedTuple):
    """The allowed values of an option: a kind of `KINDS`, and its bounds or its choices."""

    kind: str
    values: tuple[Any, ...]

    def contains(self, value: Any) -> bool:
        """Return whether a value is allowed."""
        if self.kind == "choice":
            return any(type(value) is type(choice) and value == choice for choice in self.values)
        low, high = self.values
        return type(value) is (int if "int" in self.kind else float) and bool(low <= value <= high)

    def suggest(self, trial: Trial, name: str) -> Any:
        """Suggest a value for a trial; a trial that already has a value keeps it."""
        if self.kind == "choice":
            return trial.suggest_categorical(name, self.values)
        log = self.kind.startswith("log")
        suggest: Any = trial.suggest_int if "int" in self.kind else trial.suggest_float
        return suggest(name, *self.values, log=log)

    @property
    def distribution(self) -> BaseDistribution:
        """The range of a `choice` or an `int`, as Optuna stores it."""
        if self.kind == "choice":
            return CategoricalDistribution(self.values)
        return IntDistribution(*self.values)


class SearchSpace(NamedTuple):
    """The options to search.

    Attributes:
        ranges: the allowed values of each option, by its dotted name.
        points: the combinations of values to try, each once. None: the sampler chooses values.
    """

    ranges: Mapping[str, Range]
    points: Sequence[Mapping[str, Any]] | None = None

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Suggest a value of each option for a trial."""
        return {name: allowed.suggest(trial, name) for name, allowed in self.ranges.items()}

    def contains(self, values: Mapping[str, Any]) -> bool:
        """Return whether each option has an allowed value."""
        return values.keys() == self.ranges.keys() and all(
            allowed.contains(values[name]) for name, allowed in self.ranges.items()
        )

    def grid(self) -> list[dict[str, Any]]:
        """Return all combinations of values; those of the last option alternate fastest.

        Raises:
            UserError: a range is continuous, or there are too many combinations.
        """
        axes: list[Sequence[Any]] = []
        for name, (kind, values) in self.ranges.items():
            if kind not in ("choice", "int"):
                problem = f"--sampler grid needs lists of values, {name} is {kind}"
                fix = f"write {name}: {{choice: [{values[0]}, …, {values[1]}]}}"
                raise UserError(f"{problem}: {fix}, or omit --sampler grid", status=2)
            axes.append(values if kind == "choice" else range(values[0], values[1] + 1))
        size = math.prod(map(len, axes))
        if size > MAX_COMBINATIONS:
            problem = f"--sampler grid: {size:,} combinations exceed {MAX_COMBINATIONS:,}"
            raise UserError(f"{problem}; give fewer values, or use --sampler random", status=2)
        return [dict(zip(self.ranges, point, strict=True)) for point in itertools.product(*axes)]

    @property
    def example(self) -> dict[str, Any]:
        """A point of the space."""
        return {name: allowed.values[0] for name, allowed in self.ranges.items()}


def point_key(values: Mapping[str, Any]) -> str:
    """Return a text that is equal for equal points; it distinguishes `1`, `1.0` and `true`."""
    return json.dumps(values, sort_keys=True)


def add_options(options: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """Add a point of the space to the options of `fit`.

    Its values override the options; only a `config` comes first, so that they override its content.
    """
    added = {
        name: f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in values.items()
    }
    config = [added.pop("config")] if "config" in added else []
    return [*config, *options, *added.values()]


def read(path: Path) -> SearchSpace:
    """Read a search space.

    Args:
        path: a YAML file with options of `fit` by their dotted names, each with one of `KINDS`.

    Raises:
        UserError: the file is not a search space.
    """
    content = read_yaml(path)
    example = "model.optimizer.init_args.lr: {log_uniform: [1e-4, 1e-1]}"
    if not isinstance(content, dict) or not content:
        raise UserError(f"Invalid --space {path}: expected lines such as {example}", status=2)
    try:
        return SearchSpace({_option(name): _range(spec) for name, spec in content.items()})
    except ValueError as error:
        raise UserError(f"--space {path}: {error}. A correct line: {example}", 2) from None


def _option(name: Any) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"\w+(\.\w+)*\+?", name):
        raise ValueError(f"{name!r} is not the name of an option")
    return name


def _range(spec: Any) -> Range:
    if not isinstance(spec, dict) or len(spec) != 1:
        raise ValueError(f"invalid value {spec!r}: expected one of: {', '.join(KINDS)}")
    ((kind, values),) = spec.items()
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}: expected one of: {', '.join(KINDS)}")
    if not isinstance(values, list) or not values or (kind != "choice" and len(values) != 2):
        raise ValueError(f"invalid {kind} {values!r}: expected {KINDS[kind]}")
    if kind == "choice":
        return Range(kind, _choices(values))
    try:  # YAML reads 1e-4 as a string
        low, high = (math.nan if isinstance(value, bool) else float(value) for value in values)
    except (TypeError, ValueError):
        low = high = math.nan
    is_int, is_log, expected = "int" in kind, kind.startswith("log"), ""
    if not math.isfinite(low + high):
        expected = "two numbers"
    elif is_int and not (low.is_integer() and high.is_integer()):
        expected = "two whole numbers"
    elif not low < high or (is_log and low <= 0):
        expected = "the lower number first" + ", both above 0" * is_log
    if expected:
        raise ValueError(f"invalid {kind} {values!r}: expected {expected}")
    return Range(kind, (int(low), int(high)) if is_int else (low, high))


def _choices(values: list[Any]) -> tuple[Any, ...]:
    primitives = (bool, int, float, str, type(None))
    try:
        choices = tuple(v if isinstance(v, primitives) else json.dumps(v) for v in values)
    except TypeError:
        raise ValueError(f"invalid choice {values!r}: expected JSON values") from None
    if len(set(choices)) < len(choices):
        raise ValueError(f"invalid choice {values!r}: a value appears twice")
    return choices
