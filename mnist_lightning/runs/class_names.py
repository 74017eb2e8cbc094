"""Find the class names in a configuration, wherever a parser may look for them."""

import re
from collections.abc import Collection, Container, Iterator
from typing import Any

import yaml

from mnist_lightning.errors import UserError
from mnist_lightning.files import LimitError, parse_yaml

# Options whose value may be a class name without its module: of the model, the data, the trainer.
COMPONENT_OPTIONS = {"network", "optimizer", "lr_scheduler", "augment"}
COMPONENT_OPTIONS |= {"accelerator", "callbacks", "logger", "plugins", "profiler", "strategy"}
CLASS_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def class_names(config: Any) -> set[str]:
    """Collect the names at the positions of classes; ignore other text with a dot."""
    names: set[str] = set().union(*map(class_names, parts(config)))
    if not isinstance(config, dict):
        return names
    if "class_path" in config:
        return names | dotted_names(config["class_path"])
    values = [config[option] for option in COMPONENT_OPTIONS if option in config]
    items = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return names | dotted_names([item for item in items if isinstance(item, str)])


def argument_names(config: Any, registered: Container[str]) -> set[str]:
    """Collect the strings with dots in the arguments of unregistered classes.

    They may name a function, such as the `lr_lambda` of a schedule, or a file.
    """
    is_class = isinstance(config, dict) and "class_path" in config
    if is_class and config["class_path"] not in registered:
        return dotted_names([config.get("init_args"), config.get("dict_kwargs")])
    return set().union(*(argument_names(item, registered) for item in parts(config)))


def dotted_names(value: Any) -> set[str]:
    """Collect the strings in a value that may be class paths."""
    if isinstance(value, str):
        return {value} if "." in value and CLASS_NAME.fullmatch(value) else set()
    return set().union(*map(dotted_names, parts(value)))


def parts(value: Any) -> Collection[Any]:
    """Return the values of a mapping or the items of a list; nothing for another value."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def nest_options(config: Any) -> Any:
    """Convert the dotted names of a configuration to nested mappings.

    `callbacks+`, which adds to a list, becomes `callbacks`.

    Raises:
        UserError: an option is given twice, so that one of its values would be hidden.
    """
    if isinstance(config, list | tuple):
        return [nest_options(item) for item in config]
    if not isinstance(config, dict):
        return config
    result: dict[Any, Any] = {}
    for name, value in config.items():
        parts = name.removesuffix("+").split(".") if isinstance(name, str) else [name]
        inner = nest_options(value)
        for part in reversed(parts[1:]):
            inner = {part: inner}
        _merge(result, {parts[0]: inner})
    return result


def _merge(target: dict[Any, Any], config: dict[Any, Any]) -> None:
    for name, value in config.items():
        if isinstance(value, dict) and isinstance(target.get(name), dict):
            _merge(target[name], value)
        elif name in target:
            raise UserError(f"{str(name)[:80]} is given twice; give it once", status=2)
        else:
            target[name] = value


def find_hidden_structure(config: Any) -> str | None:
    """Return the place of a text that a parser would read as a structure, or as a file to read.

    Such a text could hide class names: see `docs/decisions/trust.md`.
    """
    for section in ("model", "data", "trainer"):
        if isinstance(config, dict) and isinstance(config.get(section), str):
            return f"{section}: {config[section][:80]!r}"
    if isinstance(config, dict) and "config" in config:
        return "config, which refers to another file"
    return next(_structures(config, ""), None)


def _structures(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            last = str(name)[:80].removesuffix("+").rpartition(".")[2]
            path = f"{where}.{name}".lstrip(".")[:200]
            items = item if isinstance(item, list) else [item]
            if last in COMPONENT_OPTIONS and any(map(_is_file, items)):
                yield path
            yield from _structures(item, path)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _structures(item, where)
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
