"""The options of all commands, without importing torch and Lightning.

`options.json` is generated from the parsers by `list_options`. It has the help texts, and the names
for completion and for finding a mistyped option before the imports, which take seconds.
"""

import json
from functools import cache
from importlib.metadata import version
from typing import Any

from mnist_lightning.cli import suggestions
from mnist_lightning.errors import PACKAGE, PROGRAM, UserError

PATH = PACKAGE / "cli" / "options.json"
HELP = ("-h", "--help")
# Options with a file, which may name classes; and commands of a run, whose config does.
FILE_OPTIONS = {"-c", "--config", "--model", "--data", "--trainer"}
OF_A_RUN = ("resume", "test", "validate")


@cache
def _table() -> dict[str, Any]:
    try:
        table: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{PATH} is damaged ({error}); install the package again") from None
    return table


def option_names(command: str) -> list[str]:
    """Return the options of a command, such as `--data.batch_size`."""
    own = _table()["commands"][command]
    return sorted({*own["options"], "--help", *(_table()["options"] if own["experiment"] else ())})


def completed_options(command: str) -> list[str]:
    """Return the options that the shell completes: not those that are only known to be refused."""
    refused = _table()["commands"][command]["refused"]
    return [name for name in option_names(command) if name not in refused]


def requested_help(command: str, arguments: list[str]) -> str | None:
    """Return the help that the arguments request with `--help [TOPIC]`; None if they do not.

    Lightning's `--model.optimizer.help SGD` is the same as `--help model.optimizer.SGD`.

    Raises:
        UserError: there is no such topic.
    """
    topics = _table()["topics"]
    for word, after in zip(arguments, [*arguments[1:], ""], strict=False):
        is_topic = after.lstrip("-") in topics and after == arguments[-1]
        topic = "" if after.startswith("-") and not is_topic else after
        if word in HELP:
            return _help(command, topic)
        name, _, value = word.partition("=")
        name = name.removeprefix("--").removesuffix(".help")
        if name in _table()["classes"] and word.partition("=")[0].endswith(".help"):
            shown = f"{name}.{value or topic}".rstrip(".")
            return _help(command, shown) if shown in topics else None
    return None


def _help(command: str, topic: str) -> str:
    own = _table()["commands"][command]
    if not topic or not own["experiment"]:
        return "\n".join(own["help"])
    topics, name = _table()["topics"], topic.lstrip("-")
    owner = name.rpartition(".")[0]
    if name not in topics and owner in _table()["classes"]:  # an argument, as model.optimizer.lr
        name = owner
    found = [each for each in topics if name in (each, each.rpartition(".")[2])]
    if not found and command in OF_A_RUN:  # the word may be a RUN
        return "\n".join(own["help"])
    if name not in topics and len(found) != 1:
        similar = suggestions.closest_option(name, list(topics)).removeprefix("; ")
        choices = similar or f"topics: all, {', '.join(found or ('model', 'data', 'trainer'))}"
        raise UserError(f"--help {topic}: there is no such option; {choices}", status=2)
    return "\n".join(topics[name if name in topics else found[0]])


def check_names(command: str, arguments: list[str]) -> None:
    """Refuse an option that the command does not have. The parser checks all else, later.

    Raises:
        UserError: an option is unknown; the message suggests the closest one.
    """
    names = option_names(command)
    options, classes = {name.lstrip("-") for name in names}, _table()["classes"]
    if not _table()["commands"][command]["experiment"]:
        classes = {}
    chosen = _default_classes(command, arguments)
    for word, after in zip(arguments, [*arguments[1:], ""], strict=False):
        if word == "--":
            return
        if not word.startswith("--"):
            continue
        option, equals, value = word.removeprefix("--").partition("=")
        option = option.replace("+", "").removesuffix(".class_path")
        if option in classes:
            chosen[option] = _class_name(option, value if equals else after)
        if option in options or not _is_known(option):
            continue
        owner = next((name for name in classes if option.startswith(f"{name}.")), None)
        if owner is None:
            arguments = _argument_names(chosen) if classes else []
            raise UserError(_unknown(f"--{option}", [*arguments, *names], command), status=2)
        _check_argument(owner, chosen[owner], option[len(owner) + 1 :])


def _default_classes(command: str, arguments: list[str]) -> dict[str, str | None]:
    """Return the class of each option, if no option names one; None if a file or a run may."""
    classes = _table()["classes"]
    given = {word.partition("=")[0] for word in arguments}
    if given & FILE_OPTIONS or command in OF_A_RUN:
        return dict.fromkeys(classes)
    return {name: entry["default"] for name, entry in classes.items()}


def _argument_names(chosen: dict[str, str | None]) -> list[str]:
    """Return the options of the arguments of the chosen classes, such as `--model.optimizer.lr`."""
    known = {name: entry["arguments"] for name, entry in _table()["classes"].items()}
    return [
        f"--{option}.{argument}"
        for option, name in chosen.items()
        for argument in known[option].get(name, ())
    ]


def _class_name(option: str, value: str) -> str | None:
    """Return the name of a registered class; None for another one, which may have any argument."""
    module, _, name = value.rpartition(".")
    known = _table()["classes"][option]
    return name if not module or module in known["modules"] else None


def _check_argument(option: str, class_name: str | None, path: str) -> None:
    """Check an argument of a class, such as `init_args.lr`, if the class is known."""
    if path.startswith("dict_kwargs"):
        return
    known = _table()["classes"][option]["arguments"].get(class_name)
    argument = path.removeprefix("init_args").lstrip(".").partition(".")[0]
    if known is None or argument in ("", "help", "class_path", *known):
        return
    choices = suggestions.introduce_choices(argument, known)
    problem = f"{class_name} has no argument {argument!r}; {choices}{', '.join(known)}"
    raise UserError(f"--{option}: {problem}", status=2)


def _is_known(option: str) -> bool:
    """Return whether the list must contain an option: other releases may have others."""
    of_lightning = option.startswith("trainer.")
    of_torch = option.startswith(("model.optimizer.", "model.lr_scheduler."))
    packages = ["lightning"] * of_lightning + ["torch"] * of_torch
    return all(version(name) == _table()["versions"][name] for name in packages)


def _unknown(option: str, names: list[str], command: str) -> str:
    plain = [name.lstrip("-") for name in names]
    return suggestions.format_argparse_error(f"unrecognized arguments: {option}", plain, command)


def more_help(command: str) -> list[str]:
    """Return the lines that say where the rest of the help is."""
    topics = {
        "all": "all options",
        "trainer": "a section",
        "model.optimizer": "a class",
    }
    prefix = f"{PROGRAM} {command} --help"
    return [f"  {prefix} {topic:<15}  {text}" for topic, text in topics.items()]
