"""Write `options.json`, the list of all options, from the parsers: `make options`."""

import inspect
import json
import re
import textwrap
from argparse import SUPPRESS, Action, Namespace
from importlib import import_module
from importlib.metadata import version
from typing import Any, Literal, get_args, get_origin

from mnist_lightning.cli import options
from mnist_lightning.cli.lightning_cli import DigitCLI, ExperimentParser
from mnist_lightning.cli.main import COMMANDS
from mnist_lightning.cli.parser import CommandParser
from mnist_lightning.errors import PROGRAM
from mnist_lightning.training import registry

WIDTH = 80
# The most used options: name, value, text. Their defaults are added.
COMMON = [
    ("config", "FILE", "YAML file of options; later options win"),
    ("seed_everything", "N", "seed of all random numbers"),
    ("model.network", "CLASS", "network, such as TinyCNN"),
    ("model.optimizer", "CLASS", "optimizer, such as SGD"),
    ("model.optimizer.lr", "X", "its learning rate, and so on"),
    ("model.lr_scheduler", "CLASS", "learning-rate schedule: OneCycle, …"),
    ("data.dataset", "NAME", "data set: fashion_mnist, folder, …"),
    ("data.data_dir", "DIR", "folder of the data sets"),
    ("data.folder", "DIR", "your own images: DIR/3/anything.png"),
    ("data.batch_size", "N", "training images per step"),
    ("data.val_size", "N", "validation images"),
    ("data.augment", "CLASS", "random changes: Deformation, Noise, …"),
    ("trainer.max_epochs", "N", "passes over the training images"),
    ("trainer.max_time", "DD:HH:MM:SS", "longest duration"),
    ("trainer.accelerator", "NAME", "cpu, gpu or auto"),
    ("trainer.devices", "N", "processes, or GPUs"),
    ("trainer.precision", "NAME", "bf16-mixed, …"),
    ("trainer.callbacks", "CLASS", "EarlyStopping, …"),
    ("trainer.limit_train_batches", "N", "batches per epoch; 0.1: a tenth"),
    ("trainer.fast_dev_run", "N", "try N batches, save nothing"),
    ("trainer.default_root_dir", "DIR", "where lightning_logs/ is"),
    ("autosave", "MINUTES", "save also within an epoch"),
    ("auto_resume", "true|false", "resume the same run if there is one"),
]
# The most used ones of commands that evaluate or continue a run.
COMMON_OF = {
    "resume": "data.data_dir trainer.max_epochs trainer.max_time trainer.accelerator "
    "trainer.default_root_dir autosave",
    "test": "data.dataset data.data_dir data.folder trainer.accelerator trainer.default_root_dir",
    "validate": "data.data_dir trainer.accelerator trainer.default_root_dir",
}
# What a default of None means.
MEANING_OF_NONE = {
    "data.val_size": "5,000 of MNIST",
    "trainer.precision": "32-true",
    "trainer.limit_train_batches": "all",
    "trainer.default_root_dir": "this folder",
}
# Where Lightning's text does not apply.
TEXTS = {
    "config": "Read options from a YAML file. Later options and files override earlier ones.",
    "trainer.logger": "Loggers to use instead of the run's own, which writes TensorBoard's "
    "files and `metrics.csv`. false: none.",
    "trainer.enable_checkpointing": "Whether to save checkpoints.",
    "seed_everything": "The seed of all random numbers; true: a random one.",
    "trainer.max_epochs": "The number of epochs: passes over the training images. -1: no limit. "
    "The default is 10, or no limit if `max_steps` is given.",
}


class _ListingCLI(DigitCLI):
    """Stops when its parser and the values of its options are complete."""

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Keep the parser."""
        super().parse_arguments(parser, args)
        self.experiment_parser = parser
        raise _ParserReadyError(self)


class _ParserReadyError(Exception):
    def __init__(self, cli: _ListingCLI) -> None:
        self.parser, self.config = cli.experiment_parser, cli.config


def make_list() -> dict[str, Any]:
    """Return the content of `options.json`."""
    try:
        _ListingCLI(ExperimentParser("fit"), [])
    except _ParserReadyError as ready:
        parser, config = ready.parser, ready.config
    found = {action.dest: action for action in parser._actions if _is_listed(action)}
    classes = {name: _classes(name, config) for name in found if name in _CLASSES}
    defaults = {name: _default(config.get(name)) for name in found}
    commands = {}
    for name in COMMANDS:
        own: CommandParser = import_module(f"mnist_lightning.cli.{name}").make_parser()
        experiment = isinstance(own, ExperimentParser)
        lines = _command_help(own, defaults) if experiment else own.format_help().splitlines()
        actions = own._option_string_actions.items()
        names = [option for option, _ in actions if option.startswith("--")]
        refused = [option for option, action in actions if action.help == SUPPRESS]
        entry = {"experiment": experiment, "options": names, "refused": refused, "help": lines}
        commands[name] = entry
    return {
        "versions": {name: version(name) for name in ("lightning", "torch")},
        "commands": commands,
        "options": ["--" + name for name in found],
        "classes": classes,
        "topics": _topics(found, defaults),
    }


_CLASSES = registry.OPTION_CLASSES | {
    f"trainer.{name}": {} for name in ("logger", "strategy", "profiler", "plugins", "accelerator")
}


def _is_listed(action: Action) -> bool:
    hidden = action.help == SUPPRESS
    return bool(action.option_strings) and not hidden and not action.dest.endswith("help")


def _by_name(name: str) -> dict[str, type]:
    """Return the registered classes of an option, by the name without its module."""
    return {cls.__name__: cls for cls in dict.fromkeys(_CLASSES[name].values())}


def _classes(name: str, config: Namespace) -> dict[str, Any]:
    value = config.get(name)
    default = value.class_path.rpartition(".")[2] if hasattr(value, "class_path") else None
    arguments = {each: list(registry.parameters(cls)) for each, cls in _by_name(name).items()}
    modules = sorted({path.rpartition(".")[0] for path in _CLASSES[name]})
    return {"default": default, "modules": modules, "arguments": arguments}


def _default(value: Any) -> str:
    if hasattr(value, "class_path"):
        return str(value.class_path.rpartition(".")[2])
    if value is None or isinstance(value, Namespace):
        return ""
    return _yaml(value)


def _metavar(hint: Any) -> str:
    """Describe a type as the placeholder of a value: `N`, `true|false`, `epoch|step`."""
    if get_origin(hint) is Literal:
        return "|".join(map(str, get_args(hint)))
    names = {bool: "true|false", float: "X", str: "TEXT"}
    if hint in names:
        return names[hint]
    if inspect.isclass(hint) and issubclass(hint, int | float):
        return "N"
    members = [_metavar(each) for each in get_args(hint) if each is not type(None)]
    parts = dict.fromkeys(part for each in members for part in each.split("|"))
    return "|".join(part for part in parts if part != "VALUE") or "VALUE"


def _command_help(parser: CommandParser, defaults: dict[str, str]) -> list[str]:
    """Return the help of a command that takes the options of an experiment, for one screen."""
    command, rows = parser.command, []
    of_run = COMMON_OF.get(command, "").split()
    for name, metavar, text in COMMON:
        if of_run and name not in of_run:
            continue
        default = "" if of_run else defaults.get(name, "") or MEANING_OF_NONE.get(name, "")
        rows.append(f"  {f'--{name} {metavar}':<33} {text}{f' ({default})' if default else ''}")
    note = "" if of_run else ", with defaults"
    title = f"most used options of the experiment{note}:"
    lines = [*parser.format_help().splitlines(), "", title, *rows, "", "more help:"]
    return [*lines, *options.more_help(command)]


def _topics(found: dict[str, Action], defaults: dict[str, str]) -> dict[str, list[str]]:
    entries = {name: _entry(action, defaults[name]) for name, action in found.items()}
    topics = {"all": ["All options of an experiment:", *_joined(entries.values())]}
    for section in ("model", "data", "trainer"):
        chosen = [lines for name, lines in entries.items() if name.startswith(f"{section}.")]
        topics[section] = [f"The options of the section `{section}`:", *_joined(chosen)]
    for name, lines in entries.items():
        if name in topics:
            continue
        topics[name] = list(lines)
        if name not in _CLASSES or not _CLASSES[name]:
            continue
        topics[name] += ["", "classes, and their arguments with defaults:"]
        for each, cls in _by_name(name).items():
            arguments = ", ".join(_argument(*pair) for pair in _arguments(cls))
            topics[name] += textwrap.wrap(f"{each}({arguments})", WIDTH, **_INDENT)
            topics[f"{name}.{each}"] = _class_help(name, cls)
        topics[name] += ["", f"example: {PROGRAM} fit --{name} {each}"]
    return topics


_INDENT: dict[str, Any] = {"initial_indent": "  ", "subsequent_indent": "      "}


def _joined(entries: Any) -> list[str]:
    return [line for entry in entries for line in ["", *entry]]


def _entry(action: Action, default: str) -> list[str]:
    """Return an option with its value, default and text."""
    name = action.dest
    metavar = "CLASS" if name in _CLASSES else _metavar(getattr(action, "_typehint", None))
    if name == "config" or name in ("model", "data", "trainer"):
        metavar = "FILE"
    note = f"  (default {default})" if default else ""
    values = ""
    if len(metavar) > WIDTH // 2:
        metavar, values = "NAME", f" Values: {metavar.replace('|', ', ')}."
    text = TEXTS.get(name, action.help or "")
    text = re.sub(r"\s*Default: `*[^`\s]+`*\.?\s*$", "", text)  # Lightning's own, not that of `fit`
    text = re.sub(r"(:\w+)?:`+~?([^`]*)`+|``([^`]*)``", r"`\2\3`", text)
    wrapped = textwrap.wrap(" ".join(text.split()) + values, WIDTH - 6)
    return [f"--{name} {metavar}{note}", *(f"      {line}" for line in wrapped)]


def _arguments(cls: type) -> list[tuple[str, Any]]:
    return [(name, each.default) for name, each in registry.parameters(cls).items()]


def _argument(name: str, default: Any) -> str:
    return name if default is ... else f"{name}={_yaml(default)}"


def _yaml(value: Any) -> str:
    """Format a value as a command line takes it: `true`, `null`, `[0.9, 0.999]`."""
    try:
        return value if isinstance(value, str) else json.dumps(value)
    except TypeError:  # an object
        return str(value)


def _class_help(option: str, cls: type) -> list[str]:
    """Return a class, its description, and an option for each argument."""
    first = (inspect.getdoc(cls) or "").partition("\n\n")[0]
    lines = [
        f"--{option} {cls.__name__}",
        *textwrap.wrap(" ".join(first.split()), WIDTH, **_INDENT),
    ]
    for name, default in _arguments(cls):
        note = "  (required)" if default is ... else f"  (default {_yaml(default)})"
        lines.append(f"--{option}.{name} {_metavar(registry.parameters(cls)[name].hint)}{note}")
    return lines


if __name__ == "__main__":
    options.PATH.write_text(json.dumps(make_list(), indent=1) + "\n", encoding="utf-8")
