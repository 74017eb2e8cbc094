"""Complete the classes in a command: their paths, and arguments that the parser does not know.

By a name alone, the parser may find a class of another package: torchvision has an `MLP`, and
Lightning a `ReduceLROnPlateau`.
"""

import inspect
import json
import re
from collections.abc import Sequence
from typing import Any

from mnist_lightning.cli.parser import parse_inline
from mnist_lightning.runs.imports import find_imported
from mnist_lightning.training.registry import OPTION_CLASSES

# The paths by name, for each option. Of several paths, the shortest one is the last.
_PATHS = {
    option.rpartition(".")[2]: {path.rpartition(".")[2]: path for path in classes}
    for option, classes in OPTION_CLASSES.items()
}


def use_class_paths(arguments: Sequence[str]) -> list[str]:
    """Replace the names in options that take classes, and in settings as JSON.

    Args:
        arguments: of a command; each file is already replaced by its content.
    """
    replaced: list[str] = []
    before = ""
    for word in arguments:
        option, _, value = word.partition("=") if word[:2] == "--" else (before, "", word)
        prefix = word.removesuffix(value) if value else word
        name = option.removesuffix(".class_path").rstrip("+").rpartition(".")[2]
        parsed = parse_inline(value)
        new = _replace(parsed, name)
        if new != parsed:
            value = new if isinstance(new, str) else json.dumps(new)
        replaced.append(prefix + value)
        before = word
    return replaced


def use_dict_kwargs(words: Sequence[str], message: str) -> list[str] | None:
    """Let the network take an argument that the parser does not know, as one of its `**kwargs`.

    Args:
        words: of a command, with an option such as `--model.network.in_chans 1`.
        message: the parser's message about it.

    Returns:
        The words with `--model.network.dict_kwargs.in_chans`. None if the message is about
        something else, or if the network has no `**kwargs`.
    """
    name = re.search(r"Option '(\w+)' is not accepted", message)
    path = re.search(r"Problem with given class_path '([\w.]+)'", message)
    if name is None or path is None:
        return None
    factory = find_imported(path[1])  # the message may quote a file: import nothing
    if not callable(factory):
        return None
    parameters = inspect.signature(factory).parameters.values()
    if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
        return None
    pattern = re.compile(rf"--model\.network\.(init_args\.)?{name[1]}(=|$)")
    option = f"--model.network.dict_kwargs.{name[1]}"
    changed = [pattern.sub(rf"{option}\2", word) for word in words]
    return None if changed == list(words) else changed


def _replace(value: Any, option: str) -> Any:
    if isinstance(value, dict):
        return {
            name: _replace(item, option if name == "class_path" else str(name).rstrip("+"))
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_replace(item, option) for item in value]
    return _PATHS.get(option, {}).get(value, value) if isinstance(value, str) else value
