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
from mnist_lightning.runs.config_schema import untrusted_message
from mnist_lightning.training import lr_schedules
from mnist_lightning.training.callbacks.ema import ExponentialMovingAverage
from mnist_lightning.training.callbacks.state_dict_export import WeightsFile


def explain(message: str, options: Iterable[str], command: str) -> str:
    """Turn the parser's message into a line.

    Args:
        message: jsonargparse's message, of several lines.
        options: the names of all options, such as `data.batch_size`.
        command: the command, for the fix.
    """
    names = list(options)
    unexpected = re.search(r"unrecognized arguments: ([^-]\S*)", message)
    if unexpected and command in ("resume", "validate", "test"):
        return (
            f"unexpected argument {unexpected[1]!r}; a RUN comes right after the command: "
            f"{PROGRAM} {command} RUN …"
        )
    if match := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return _unknown_key(f"{match[1]}.{match[2]}", names)
    in_file = re.search(r"Key '([\w.]+)' is not expected|Option '([\w.]+)' is not", message)
    if in_file and "class_path" not in message:
        return _unknown_key(in_file[1] or in_file[2], names)
    if match := re.search(r'Parser key "([\w.]+)"', message):
        key, message = _innermost(message, match[1])
        return f"--{key}: {_reason(message, key)}"
    return suggestions.format_argparse_error(message, names, command)


def _innermost(message: str, key: str) -> tuple[str, str]:
    """Return the argument of a class that is wrong, and the part of the message about it."""
    lines = message.splitlines()
    for place, line in enumerate(lines[1:], 1):
        if match := re.search(r'Parser key "(\w+)":', line):
            return f"{key}.{match[1]}", "\n".join([":", *_inside(line, lines[place + 1 :])])
    return key, message


def _inside(line: str, following: list[str]) -> Iterator[str]:
    """Return the lines that belong to a line: those that are indented more."""
    indent = len(line) - len(line.lstrip())
    return takewhile(lambda text: not text or not text[: indent + 1].strip(), following)


def explain_class_error(error: Exception) -> str:
    """Return in one line why a class did not accept its arguments."""
    text = _one_line(str(error))
    # For a union, the parser lists the error of each type.
    match = re.search(r"Union subtypes Subtypes: .*? Errors: - (.*?) - Expected", text)
    return match[1] if match else text


def _unknown_key(key: str, names: list[str]) -> str:
    return f"unknown key in the configuration: {key}{suggestions.closest_option(key, names)}"


def _reason(message: str, key: str) -> str:
    if match := re.search(r"Option '(\w+)' is not accepted", message):
        owner = re.search(r"Problem with given class_path '([\w.]+)'", message)
        if owner is None:
            return f"the {key.rsplit('.', 1)[-1]} has no argument {match[1]!r}"
        module, _, name = owner[1].rpartition(".")
        arguments = list(signature(getattr(import_module(module), name)).parameters)
        hint = suggestions.hint(match[1], arguments)
        return f"{name} has no argument {match[1]!r}; {hint}expected {', '.join(arguments)}"
    if match := re.search(r"NestedArg\(key='(\w+)'", message):
        first = f"--{key} CLASS --{key}.{match[1]} …"
        return f"{match[1]} is an argument of a class; name the class first: {first}"
    if match := re.search(r"Importing '([\w.]+)' is not allowed", message):
        return untrusted_message(match[1], "this option's file")
    classes = _classes(key) if key.count(".") == 1 else []  # not for an argument of a class
    match = re.search(r"[Ii]mport path(?: string:)? (?!does\b)([\w.]+)", message)
    match = match or re.search(r"Given value: ([\w.]+)$", message, re.M)
    if classes and match:
        return _wrong_class(match[1], classes, message)
    value = re.search(r"(?:Got|Given) value: (.*?)(?=\. Got value|$)", message, re.M) or re.search(
        r"Not of type \w+: .*?'?([^\s']+)'?(?: does not conform.*)?$", message
    )
    if classes and value and (match := re.search(r"'class_path': '([\w.]+)'", value[1])):
        return _wrong_class(match[1], classes, message)
    wanted = re.findall(r"(?:Expected an?|Not of type) (.*?)(?:\. Got|: |$)", message, re.M)
    expected = [_type_name(text) for text in wanted if not re.match("path but|dot import", text)]
    if not expected or value is None:
        return _one_line(message.split(":", 1)[1])
    words = [word for choices in wanted for word in _choices(choices)]
    return suggestions.invalid_value(value[1], words, " or ".join(dict.fromkeys(expected)))


_TYPE_NAMES = {
    **suggestions.TYPE_NAMES,
    "NoneType": "null",
    "bool": "true or false",
    "PositiveInt": "a positive integer",
    "NonNegativeFloat": "a number of at least 0",
}


def _type_name(expected: str) -> str:
    if match := re.fullmatch(r"<class '(\w+)'>", expected):
        return _TYPE_NAMES.get(match[1], match[1])
    if expected in _TYPE_NAMES:
        return _TYPE_NAMES[expected]
    return ", ".join(_choices(expected)) or expected


def _choices(expected: str) -> list[str]:
    match = re.fullmatch(r"typing\.Literal\[(.*)\]", expected)
    return match[1].replace("'", "").split(", ") if match else []


def _wrong_class(path: str, classes: list[str], message: str) -> str:
    if path in classes:
        return f"several classes are named {path}; give a full path: package.module.{path}"
    hint = suggestions.hint(path.rsplit(".", 1)[-1], classes)
    # The error of importing its module.
    match = re.search(r"Errors:\s+- (?:Problem with given class_path [^:]+:\s+)?(.+)", message)
    own = "." in path and match and not re.match("Expected a |Import path ", match[1])
    reason = f": {match[1]}" if match and own else ""
    expected = f"expected {', '.join(classes)}, or the path of such a class"
    return f"invalid value {path}{reason}; {hint}{expected}"


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
        own = {ExponentialMovingAverage.__name__, WeightsFile.__name__}
        return sorted({*own, *callbacks.__all__} - {"Callback"})
    return []


def _subclasses(base: type) -> set[type]:
    direct: set[type] = set(base.__subclasses__())
    return direct.union(*(_subclasses(cls) for cls in direct))


def _is_public(cls: type) -> bool:
    return cls.__module__.startswith("torch.optim") and not cls.__name__.startswith("_")


def _one_line(message: str) -> str:
    return " ".join(message.split())
