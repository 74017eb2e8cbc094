"""Find the class names in a configuration, wherever a parser may look for them."""

import re
from collections.abc import Container, Iterator
from typing import Any

import yaml

from mnist_lightning.errors import UserError
from mnist_lightning.files import LimitError, parse_yaml

# Where a class may be given by its bare name.
COMPONENT_OPTIONS = (
    "network",
    "optimizer",
    "lr_scheduler",
    "augment",
    "accelerator",
    "callbacks",
    "logger",
    "plugins",
    "profiler",
    "strategy",
)
CLASS_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def class_names(config: Any) -> set[str]:
    """Collect the names that stand where a class belongs; no text that merely has a dot."""
    if isinstance(config, list | tuple):
        return set().union(*map(class_names, config))
    if not isinstance(config, dict):
        return set()
    found = dotted_names(config.get("class_path"))
    for name, value in config.items():
        found |= class_names(value)
        if name in COMPONENT_OPTIONS and "class_path" not in config:
            items = value if isinstance(value, list) else [value]
            found |= dotted_names([each for each in items if isinstance(each, str)])
    return found


def argument_names(config: Any, registered: Container[str]) -> set[str]:
    """Collect the dotted texts in the arguments of classes that are not registered.

    They may name a function, such as the `lr_lambda` of a schedule, or a file.
    """
    if isinstance(config, list | tuple):
        return set().union(*(argument_names(each, registered) for each in config))
    if not isinstance(config, dict):
        return set()
    if "class_path" in config and config["class_path"] not in registered:
        return dotted_names([config.get("init_args"), config.get("dict_kwargs")])
    return set().union(*(argument_names(each, registered) for each in config.values()))


def dotted_names(value: Any) -> set[str]:
    """Collect the strings in a value that may be class paths."""
    if isinstance(value, str):
        return {value} if "." in value and CLASS_NAME.fullmatch(value) else set()
    inside = value.values() if isinstance(value, dict) else value
    return set().union(*map(dotted_names, inside)) if isinstance(value, dict | list) else set()


def nested(config: Any) -> Any:
    """Write the dotted names of a configuration as mappings in each other.

    `callbacks+`, which adds to a list, becomes `callbacks`.

    Raises:
        UserError: an option is given twice, so that one of them would be hidden.
    """
    if isinstance(config, list | tuple):
        return [nested(each) for each in config]
    if not isinstance(config, dict):
        return config
    written: dict[Any, Any] = {}
    for name, value in config.items():
        parts = name.removesuffix("+").split(".") if isinstance(name, str) else [name]
        inner = nested(value)
        for part in reversed(parts[1:]):
            inner = {part: inner}
        _merge(written, {parts[0]: inner})
    return written


def _merge(into: dict[Any, Any], config: dict[Any, Any]) -> None:
    for name, value in config.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        elif name in into:
            raise UserError(f"{str(name)[:80]} is given twice: give it once", status=2)
        else:
            into[name] = value


def hidden_structure(config: Any) -> str | None:
    """Find a text in which a parser would see a structure, or a file to read; say where.

    Nobody can tell which classes it names: see `docs/decisions/trust.md`.
    """
    for section in ("model", "data", "trainer"):
        if isinstance(config, dict) and isinstance(config.get(section), str):
            return f"{section}: {config[section][:80]!r}"
    if isinstance(config, dict) and "config" in config:
        return "config, which names another file"
    return next(_structures(config, ""), None)


def _structures(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            last = str(name)[:80].removesuffix("+").rpartition(".")[2]
            inside = f"{where}.{name}".lstrip(".")[:200]
            items = each if isinstance(each, list) else [each]
            if last in COMPONENT_OPTIONS and any(map(_is_file, items)):
                yield inside
            yield from _structures(each, inside)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _structures(each, where)
    elif isinstance(value, str) and _is_structure(value):
        yield where


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and not CLASS_NAME.fullmatch(value) and "/" in value


def _is_structure(text: str) -> bool:
    try:
        return isinstance(parse_yaml(text), dict | list)
    except LimitError:
        return True
    except (yaml.YAMLError, ValueError):
        return False
