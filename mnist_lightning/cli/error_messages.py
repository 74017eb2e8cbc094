"""Turn the errors of jsonargparse into one line: problem, value, fix."""

import re
from collections.abc import Collection
from inspect import isfunction
from traceback import walk_tb
from typing import Any

from mnist_lightning.cli import suggestions
from mnist_lightning.errors import PROGRAM
from mnist_lightning.networks.registry import REGISTERED
from mnist_lightning.runs.config_schema import untrusted_message
from mnist_lightning.runs.imports import find_imported
from mnist_lightning.training import registry

_TYPE_NAMES = suggestions.TYPE_NAMES | {
    "NoneType": "null",
    "bool": "true or false",
    "PositiveInt": "a positive integer",
    "NonNegativeFloat": "0 or a larger number",
}


def explain(message: str, options: Collection[str], command: str) -> str:
    """Turn the parser's message into a line.

    Args:
        message: jsonargparse's message, of several lines.
        options: the names of all options, such as `data.batch_size`.
        command: the command, for the fix.
    """
    unexpected = re.search(r"unrecognized arguments: ([^-]\S*)", message)
    if unexpected and command in ("resume", "validate", "test"):
        fix = f"give the RUN directly after the command: {PROGRAM} {command} RUN …"
        if command == "test":
            fix += f"; several RUNs with commas: {PROGRAM} {command} 3,5"
        return f"unexpected argument {unexpected[1]!r}; {fix}"
    if (unknown := _unknown_key(message)) is not None:
        closest = suggestions.closest_option(unknown, options) or "; remove it"
        return f"unknown key in the configuration: {unknown}{closest}"
    if match := re.search(r'Parser key "([\w.]+)"', message):
        key, about = _innermost(message, match[1])
        return f"--{key}: {_reason(about, key)}"
    return suggestions.format_argparse_error(message, options, command)


def explain_class_error(error: Exception) -> str:
    """Return in one line why a class did not accept its arguments."""
    text = " ".join(str(error).split())
    if match := re.search(r"class_path='[\w.]*?(\w+)'.*?(\w+)=<[\w.]+: '(\w+)'>", text):
        # The default is an object, which the parser cannot store.
        return f"--trainer.callbacks {match[1]}: add --trainer.callbacks.{match[2]} {match[3]}"
    # For a union, the parser lists the error of each type.
    match = re.search(r"Union subtypes Subtypes: .*? Errors: - (.*?) - Expected", text)
    text = match[1] if match else text
    # See `augmentations.check_value`; in a list, other messages come first.
    if match := re.search(r"(?:^|- )((\w+): invalid value .*)", text):
        is_data = match[2] in registry.SCHEMA.sections["data"]
        return f"--{'data' if is_data else 'data.augment'}.{match[1]}"
    return text


def explain_model_error(error: Exception, network: dict[str, Any]) -> str:
    """Return in one line why the data or the model could not be made.

    Args:
        error: what was raised.
        network: the class of the network and its arguments.
    """
    text = explain_class_error(error)
    path = network["class_path"]
    module, _, name = path.rpartition(".")
    first = error.__cause__ or error  # the parser raises it again
    modules = {frame.f_globals.get("__name__") for frame, _ in walk_tb(first.__traceback__)}
    if text.startswith("--") or (path in REGISTERED and module not in modules):
        return text
    given = {**(network.get("init_args") or {}), **(network.get("dict_kwargs") or {})}
    arguments = ", ".join(f"{argument} {value}" for argument, value in given.items())
    about = f" ({arguments})" if arguments else ""
    return f"--model.network {name if path in REGISTERED else path}{about}: {text}"


def _unknown_key(message: str) -> str | None:
    if match := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return f"{match[1]}.{match[2]}"
    match = re.search(r"(?:Key|Option) '([\w.]+)' is not", message)
    return match[1] if match and "class_path" not in message else None


def _innermost(message: str, key: str) -> tuple[str, str]:
    """Return the argument of a class that is wrong, and the part of the message about it."""
    lines = message.splitlines()
    for place, line in enumerate(lines[1:], 1):
        if match := re.search(r'Parser key "(\w+)":', line):
            margin = " " * (len(line) - len(line.lstrip()) + 1)  # of the lines about it
            following = lines[place + 1 :]
            end = next((n for n, text in enumerate(following) if not text.startswith(margin)), None)
            return f"{key}.{match[1]}", "\n".join([":", *following[:end]])
    return key, message


def _reason(message: str, key: str) -> str:
    if match := re.search(r"Option '(\w+)' is not accepted", message):
        return _unknown_argument(match[1], message)
    if match := re.search(r"the following arguments are required: ([\w, ]+)", message):
        options = " ".join(f"--{key}.{name} …" for name in match[1].split(", "))
        return f"it needs {match[1]}; add {options}"
    if match := re.search(r"NestedArg\(key='(\w+)'", message):
        first = f"--{key} CLASS --{key}.{match[1]} …"
        return f"{match[1]} is an argument of a class; give the class first: {first}"
    match = re.search(r"Importing '([\w.]+)' is not allowed", message)
    is_path = re.search(r"Problem with given class_path '\w+\.", message)
    if match and (is_path or key not in registry.OPTION_CLASSES):
        return untrusted_message(match[1], "this option's file")
    value = re.search(r"(?:Got|Given) value: (.*?)(?=\. Got value|$)", message, re.M) or re.search(
        r"Not of type \w+: .*?'?([^\s']+)'?(?: does not conform.*)?$", message
    )
    wrong = re.search(r"[Ii]mport path(?: string:)? (?!does\b)([\w.]+)", message)
    wrong = wrong or (value and re.search(r"^(?:.*'class_path': ')?([\w.]+)", value[1]))
    if match and key in registry.OPTION_CLASSES:  # a class of another package has this name
        wrong = re.search(r"Problem with given class_path '(\w+)'", message)
    if key in registry.OPTION_CLASSES and wrong:
        return _wrong_class(wrong[1], key, message)
    types = re.findall(r"(?:Expected an?|Not of type) (.*?)(?:\. Got|: |$)", message, re.M)
    types = [text for text in types if not re.match("path but|dot import", text)]
    if not types or value is None:
        return " ".join(message.split(":", 1)[1].split())
    choices = [choice for text in types for choice in _choices(text)]
    expected = dict.fromkeys(
        item for text in types for item in _choices(text) or [_type_name(text)]
    )
    separator = ", " if choices else " or "
    return suggestions.invalid_value(value[1], choices, separator.join(expected))


def _choices(expected: str) -> list[str]:
    match = re.fullmatch(r"typing\.Literal\[(.*)\]", expected)
    return match[1].replace("'", "").split(", ") if match else []


def _type_name(expected: str) -> str:
    name = re.sub(r"^<class '(\w+)'>$", r"\1", expected)
    return _TYPE_NAMES.get(name, name)


def _unknown_argument(name: str, message: str) -> str:
    owner = re.search(r"(?:Problem with given class_path |class_path=)'([\w.]+)'", message)
    # The message may quote a file: look up the class, and import nothing.
    component = registry.USER_SCHEMA.components.get(owner[1]) if owner else None
    if component is None:
        return f"the class has no argument {name!r}; remove it"
    class_name, arguments = component.__name__, list(registry.parameters(component))
    introduction = suggestions.introduce_choices(name, arguments)
    return f"{class_name} has no argument {name!r}; {introduction}{', '.join(arguments)}"


def _wrong_class(path: str, key: str, message: str) -> str:
    classes = sorted({known.rpartition(".")[2] for known in registry.OPTION_CLASSES[key]})
    if path in classes:
        return f"several classes are named {path}; give a full path: package.module.{path}"
    function = find_imported(path)
    if isfunction(function) and "return" not in function.__annotations__:
        return f"{path} has no return type; write: def {function.__name__}(…) -> nn.Module"
    introduction = suggestions.introduce_choices(path.rsplit(".", 1)[-1], classes)
    # The error of importing its module.
    match = re.search(r"Errors:\s+- (?:Problem with given class_path [^:]+:\s+)?(.+)", message)
    own = "." in path and match and not re.match("Expected a |Import path ", match[1])
    reason = f": {match[1]}" if match and own else ""
    expected = f"{introduction}{', '.join(classes)}, or another class: package.module.Class"
    if match := re.search("No module named '([^']+)'", reason):
        expected = f"start the command in the folder that contains {match[1]}.py, or install it"
    return f"invalid value {path}{reason}; {expected}"
