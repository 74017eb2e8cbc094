"""Turn the errors of jsonargparse into one line: problem, value, fix."""

import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from inspect import isabstract, signature
from itertools import takewhile

from lightning.pytorch import callbacks
from torch.optim import Optimizer, lr_scheduler

from mnist_lightning.cli import suggestions
from mnist_lightning.data.augmentations import Augmentation
from mnist_lightning.errors import PROGRAM
from mnist_lightning.networks.registry import ARCHITECTURES
from mnist_lightning.runs.config_schema import untrusted
from mnist_lightning.training import lr_schedules
from mnist_lightning.training.callbacks.ema import ExponentialMovingAverage
from mnist_lightning.training.callbacks.state_dict_export import WeightsFile


def explain(message: str, options: Iterable[str], command: str) -> str:
    """Turn the parser's message into a line.

    Args:
        message: what jsonargparse said, of several lines.
        options: the options there are, such as `data.batch_size`.
        command: the command, for the remedy.
    """
    names = list(options)
    stray = re.search(r"unrecognized arguments: ([^-]\S*)", message)
    if stray and command in ("resume", "validate", "test"):
        return (
            f"{stray[1]!r} is not an option; a RUN comes right after the command: "
            f"{PROGRAM} {command} RUN …"
        )
    if found := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return _unknown_key(f"{found[1]}.{found[2]}", names)
    in_file = re.search(r"Key '([\w.]+)' is not expected|Option '([\w.]+)' is not", message)
    if in_file and "class_path" not in message:
        return _unknown_key(in_file[1] or in_file[2], names)
    if found := re.search(r'Parser key "([\w.]+)"', message):
        key, message = _innermost(message, found[1])
        return f"--{key}: {_reason(message, key)}"
    return suggestions.format_argparse_error(message, names, command)


def _innermost(message: str, key: str) -> tuple[str, str]:
    """Find the argument of a class that is wrong, and what is said of it alone."""
    lines = message.splitlines()
    for place, line in enumerate(lines[1:], 1):
        if found := re.search(r'Parser key "(\w+)":', line):
            return f"{key}.{found[1]}", "\n".join([":", *_inside(line, lines[place + 1 :])])
    return key, message


def _inside(line: str, following: list[str]) -> Iterator[str]:
    """The lines that belong to a line: those that begin further to the right."""
    margin = len(line) - len(line.lstrip())
    return takewhile(lambda each: not each or not each[: margin + 1].strip(), following)


def of_a_class(error: Exception) -> str:
    """Say in a line why a class did not accept its arguments."""
    text = _one_line(str(error))
    # Where several types would do, the parser lists what each of them said.
    found = re.search(r"Union subtypes Subtypes: .*? Errors: - (.*?) - Expected", text)
    return found[1] if found else text


def _unknown_key(key: str, names: list[str]) -> str:
    return f"the configuration has an unknown key {key}{suggestions.close(key, names)}"


def _reason(message: str, key: str) -> str:
    if found := re.search(r"Option '(\w+)' is not accepted", message):
        owner = re.search(r"Problem with given class_path '([\w.]+)'", message)
        if owner is None:
            return f"the {key.rsplit('.', 1)[-1]} has no argument {found[1]!r}"
        module, _, name = owner[1].rpartition(".")
        takes = list(signature(getattr(import_module(module), name)).parameters)
        meant = suggestions.hint(found[1], takes)
        return f"{name} has no argument {found[1]!r}; {meant}it takes {', '.join(takes)}"
    if found := re.search(r"NestedArg\(key='(\w+)'", message):
        first = f"--{key} CLASS --{key}.{found[1]} …"
        return f"{found[1]} is a class's argument; name the class first: {first}"
    if found := re.search(r"Importing '([\w.]+)' is not allowed", message):
        return untrusted(found[1], "this option's file")
    classes = _classes(key) if key.count(".") == 1 else []  # not of a class's argument
    found = re.search(r"[Ii]mport path(?: string:)? (?!does\b)([\w.]+)", message)
    found = found or re.search(r"Given value: ([\w.]+)$", message, re.M)
    if classes and found:
        return _wrong_class(found[1], classes, message)
    value = re.search(r"(?:Got|Given) value: (.*?)(?=\. Got value|$)", message, re.M) or re.search(
        r"Not of type \w+: .*?'?([^\s']+)'?(?: does not conform.*)?$", message
    )
    if classes and value and (found := re.search(r"'class_path': '([\w.]+)'", value[1])):
        return _wrong_class(found[1], classes, message)
    wanted = re.findall(r"(?:Expected an?|Not of type) (.*?)(?:\. Got|: |$)", message, re.M)
    expected = [_plainly(text) for text in wanted if not re.match("path but|dot import", text)]
    if not expected or value is None:
        return _one_line(message.split(":", 1)[1])
    words = [word for choices in wanted for word in _choices(choices)]
    return suggestions.invalid_value(value[1], words, " or ".join(dict.fromkeys(expected)))


_PLAIN_NAMES = {
    **suggestions.KINDS,
    "NoneType": "null",
    "bool": "true or false",
    "PositiveInt": "a whole number above 0",
    "NonNegativeFloat": "a number from 0 up",
}


def _plainly(expected: str) -> str:
    if found := re.fullmatch(r"<class '(\w+)'>", expected):
        return _PLAIN_NAMES.get(found[1], found[1])
    if expected in _PLAIN_NAMES:
        return _PLAIN_NAMES[expected]
    return ", ".join(_choices(expected)) or expected


def _choices(expected: str) -> list[str]:
    found = re.fullmatch(r"typing\.Literal\[(.*)\]", expected)
    return found[1].replace("'", "").split(", ") if found else []


def _wrong_class(path: str, classes: list[str], message: str) -> str:
    if path in classes:
        return f"several classes are called {path}; write the path of the one you mean"
    hint = suggestions.hint(path.rsplit(".", 1)[-1], classes)
    # What its module raised, or that there is none.
    found = re.search(r"Errors:\s+- (?:Problem with given class_path [^:]+:\s+)?(.+)", message)
    own = "." in path and found and not re.match("Expected a |Import path ", found[1])
    reason = f": {found[1]}" if found and own else ""
    takes = f"expected {', '.join(classes)}, or the path of such a class"
    return f"invalid value {path}{reason}; {hint}{takes}"


def _classes(key: str) -> list[str]:
    if key.startswith("model.network"):
        return sorted(ARCHITECTURES)
    if key.startswith("model.optimizer"):
        return sorted(cls.__name__ for cls in _subclasses(Optimizer) if _is_public(cls))
    if key.startswith("model.lr_scheduler"):
        public = [cls for cls in _subclasses(lr_scheduler.LRScheduler) if _is_public(cls)]
        return sorted(cls.__name__ for cls in [*public, lr_schedules.Cosine, lr_schedules.OneCycle])
    if key.startswith("data.augment"):
        concrete = [cls for cls in _subclasses(Augmentation) if not isabstract(cls)]
        return sorted(cls.__name__ for cls in concrete)
    if key.startswith("trainer.callbacks"):
        ours = {ExponentialMovingAverage.__name__, WeightsFile.__name__}
        return sorted({*ours, *callbacks.__all__} - {"Callback"})
    return []


def _subclasses(base: type) -> set[type]:
    direct: set[type] = set(base.__subclasses__())
    return direct.union(*(_subclasses(cls) for cls in direct))


def _is_public(cls: type) -> bool:
    return cls.__module__.startswith("torch.optim") and not cls.__name__.startswith("_")


def _one_line(message: str) -> str:
    return " ".join(message.split())
