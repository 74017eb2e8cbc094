"""The search space of a sweep: options, and the values that each may take."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from optuna import Trial

from mnist_lightning.errors import UserError
from mnist_lightning.files import read_yaml

KINDS = {
    "uniform": "[low, high]",
    "log_uniform": "[low, high]",
    "int": "[low, high]",
    "log_int": "[low, high]",
    "choice": "[value, value, …]",
}


class Range(NamedTuple):
    """What an option may be: a kind of `KINDS`, and its bounds or its values."""

    kind: str
    values: tuple[Any, ...]

    def contains(self, value: Any) -> bool:
        """Tell whether a value is one of these."""
        if self.kind == "choice":
            return any(type(value) is type(each) and value == each for each in self.values)
        low, high = self.values
        return type(value) is (int if "int" in self.kind else float) and bool(low <= value <= high)

    def suggest(self, trial: Trial, name: str) -> Any:
        """Have a trial choose a value; the one it has chosen before, if it has."""
        if self.kind == "choice":
            return trial.suggest_categorical(name, self.values)
        log = self.kind.startswith("log")
        suggest: Any = trial.suggest_int if "int" in self.kind else trial.suggest_float
        return suggest(name, *self.values, log=log)


class SearchSpace(NamedTuple):
    """The options that are searched, by their dotted names."""

    ranges: Mapping[str, Range]

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Have a trial choose a value of each option."""
        return {name: of.suggest(trial, name) for name, of in self.ranges.items()}

    def contains(self, values: Mapping[str, Any]) -> bool:
        """Tell whether these are values that the options may take."""
        return values.keys() == self.ranges.keys() and all(
            of.contains(values[name]) for name, of in self.ranges.items()
        )

    @property
    def example(self) -> dict[str, Any]:
        """A point of the space."""
        return {name: of.values[0] for name, of in self.ranges.items()}


def as_options(values: Mapping[str, Any]) -> list[str]:
    """A point as options of `fit`."""
    return [
        f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in values.items()
    ]


def read(path: Path) -> SearchSpace:
    """Read a space.

    Args:
        path: a YAML file: options of `fit` by their dotted names, each with one of `KINDS`.

    Raises:
        UserError: it is none.
    """
    content = read_yaml(path)
    example = "model.optimizer.init_args.lr: {log_uniform: [1e-4, 1e-1]}"
    if not isinstance(content, dict) or not content:
        raise UserError(f"--space {path} is no space: a line of one is, say, {example}", status=2)
    try:
        return SearchSpace({_option(name): _range(of) for name, of in content.items()})
    except ValueError as error:
        raise UserError(f"--space {path}: {error}; right would be, say, {example}", 2) from None


def _option(name: Any) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"\w+(\.\w+)*\+?", name):
        raise ValueError(f"{name!r} is not the name of an option")
    return name


def _range(of: Any) -> Range:
    if not isinstance(of, dict) or len(of) != 1:
        raise ValueError(f"{of!r} is not one of {', '.join(KINDS)} with its values")
    ((kind, values),) = of.items()
    if kind not in KINDS:
        raise ValueError(f"there is no {kind!r}, but {', '.join(KINDS)}")
    if not isinstance(values, list) or not values or (kind != "choice" and len(values) != 2):
        raise ValueError(f"{kind} takes {KINDS[kind]}, not {values!r}")
    if kind == "choice":
        return Range(kind, _choices(values))
    try:  # YAML takes 1e-4 for a text
        low, high = (float(v) for v in values)
    except (TypeError, ValueError):
        raise ValueError(f"{kind} takes two numbers, not {values!r}") from None
    whole = "int" in kind
    if any(isinstance(v, bool) for v in values) or not math.isfinite(low + high):
        raise ValueError(f"{kind} takes two numbers, not {values!r}")
    if whole and not (low.is_integer() and high.is_integer()):
        raise ValueError(f"{kind} takes two whole numbers, not {values!r}")
    if not low < high or (kind.startswith("log") and low <= 0):
        least = " above 0" if kind.startswith("log") else ""
        raise ValueError(f"{kind} goes from a lower to a higher number{least}, not {values!r}")
    return Range(kind, (int(low), int(high)) if whole else (low, high))


def _choices(values: list[Any]) -> tuple[Any, ...]:
    primitive = (bool, int, float, str, type(None))
    try:
        chosen = tuple(v if isinstance(v, primitive) else json.dumps(v) for v in values)
    except TypeError:
        raise ValueError(f"choice takes texts, numbers, true, false and null: {values!r}") from None
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"choice takes each value once, not {values!r}")
    return chosen
