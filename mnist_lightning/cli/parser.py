"""The parser of a command's own options, and the files and classes that a command names."""

import argparse
import json
import re
from collections.abc import Callable, Sequence, Set
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml

from mnist_lightning.cli import suggestions
from mnist_lightning.errors import PACKAGE, PROGRAM, UserError
from mnist_lightning.files import exists
from mnist_lightning.runs.class_names import (
    CLASS_NAME,
    COMPONENT_OPTIONS,
    argument_names,
    class_names,
    dotted_names,
)
from mnist_lightning.runs.run_directory import LOGS_FOLDER


class _HelpFormatter(argparse.HelpFormatter):
    """Keeps the lines of the examples; `options.json` must not depend on the terminal's width."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=80)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("example"):
            return text
        return super()._fill_text(text, width, indent)


class CommandParser(argparse.ArgumentParser):
    """Parses the options of a command; raises `UserError` for an error.

    Args:
        command: its name.
        description: what it does.
        example: the rest of a command line; several are separated by line breaks.
    """

    def __init__(self, command: str, description: str, example: str) -> None:
        self.command = command
        lines = [f"{PROGRAM} {command} {each}".rstrip() for each in example.split("\n")]
        super().__init__(
            prog=f"{PROGRAM} {command}",
            description=description,
            epilog="\n  ".join(["examples:" if len(lines) > 1 else "example:", *lines]),
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
            add_help=False,  # `cli.options` has it, so that no command is imported for its help
        )

    def add_root(self) -> None:
        """Add the option for the directory of the runs, as `root`."""
        name, text = "--trainer.default_root_dir", "the directory of the runs"
        self.add_argument(name, dest="root", metavar="DIR", type=runs_root, default="", help=text)

    def add_run(self) -> None:
        """Add the RUN, as `run`."""
        self.add_argument("run", nargs="?", default="best", metavar="RUN", help="(default: best)")

    def add_output_format(self, **others: str) -> None:
        """Add the options for the output format: `json`, `csv`, and others by name and help."""
        group = self.add_mutually_exclusive_group()
        for name, text in {"json": "print JSON", "csv": "print CSV", **others}.items():
            group.add_argument(f"--{name}", action="store_true", help=text)

    def add_run_options(self) -> None:
        """Add the RUN, and the options to evaluate it again: root directory, data and network."""
        self.add_run()
        self.add_network()
        text = "where the run's data set is now (default: as in the run)"
        self.add_argument("--data.data_dir", dest="data_dir", metavar="DIR", help=text)

    def add_network(self) -> None:
        """Add the options to find and load a network: `root`, and `network`, the user's class."""
        self.add_root()
        text = "the class of your own network"
        self.add_argument("--model.network", dest="network", metavar="CLASS", help=text)

    def error(self, message: str) -> NoReturn:
        """Report a mistake in one line.

        Raises:
            UserError: always.
        """
        error = suggestions.format_argparse_error(message, self.option_names, self.command)
        raise UserError(error, status=2)

    @property
    def option_names(self) -> list[str]:
        """The names of the options, without dashes."""
        return [option.lstrip("-") for option in self._option_string_actions]


MAX_SEEDS = 1000


def runs_root(default_root_dir: str | None = None) -> Path:
    """Return the directory of the runs, under Lightning's `default_root_dir`."""
    return Path(default_root_dir or "") / LOGS_FOLDER


def option_value(name: str, arguments: Sequence[str]) -> str | None:
    """Return the value of an option that another parser reads; None if it is not given."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(name, dest="value")
    try:
        value: str | None = parser.parse_known_args(arguments)[0].value
    except argparse.ArgumentError:
        raise UserError(f"{name} needs a value", status=2) from None
    return value


# Options that take a file of settings, and the section of these settings; "" for all sections.
FILE_OPTIONS = {f"--{section}": section for section in ("model", "data", "trainer")}
FILE_OPTIONS |= {"--config": "", "-c": ""}
# An option of each section, for the message about a missing file.
EXAMPLES = {
    "--model": "--model.network TinyCNN",
    "--data": "--data.batch_size 64",
    "--trainer": "--trainer.max_epochs 3",
}


def read_files(arguments: Sequence[str], read: Callable[[Path, str], dict[str, Any]]) -> list[str]:
    """Put the content of each file of settings that a command names in its place.

    So each is read once, and what is parsed is what was checked.

    Args:
        arguments: of the command.
        read: returns the content of a file, given its path and its section.

    Raises:
        UserError: a file does not exist, or is not a regular one.
    """
    replaced: list[str] = []
    before = ""
    for word in arguments:
        option, equals, value = word.partition("=")
        if before in FILE_OPTIONS and not word.startswith("--"):
            option, equals, value = before, "", word
        if option in FILE_OPTIONS and (equals or option == before) and not value.startswith("{"):
            example = EXAMPLES.get(option)
            single = f", or options such as {example}" if example else ""
            path = find_file(option, value, single)
            content = json.dumps(read(path, FILE_OPTIONS[option]))
            word = f"{option}={content}" if equals else content
        replaced.append(word)
        before = word
    return replaced


def find_file(option: str, name: str, alternative: str = "") -> Path:
    """Return the file that an option names: a path, or a config of this package such as `mlp`.

    Raises:
        UserError: there is no such file, or it is not a regular one.
    """
    path = Path(name)
    if exists(name) and not path.is_dir():
        if not path.is_file():
            raise UserError(f"{option} {name} is not a regular file; give a YAML file", status=2)
        return path
    if option in EXAMPLES:
        if "." in name and CLASS_NAME.fullmatch(name):  # a class, as `LightningCLI` takes it
            fix = "to train with a subclass, use it in Python with a Trainer"
            raise UserError(f"{option} {name}: the class of this section is fixed; {fix}", status=2)
        raise UserError(f"{option} {name} does not exist; give a YAML file{alternative}", status=2)
    folder = PACKAGE / "configs" / ("sweeps" if option == "--space" else "")
    configs = {file.stem: file for file in folder.glob("*.yaml")}
    wanted = name.removeprefix("configs/").removeprefix("sweeps/").removesuffix(".yaml")
    if wanted in configs:
        return configs[wanted]
    choices = f"a YAML file, or one of this package: {', '.join(sorted(configs))}"
    closest = get_close_matches(wanted.rpartition("/")[2], configs, n=1)
    hint = f"did you mean {closest[0]}? Give " if closest else "give "
    raise UserError(f"{option} {name} does not exist; {hint}{choices}", status=2)


class NamedClasses(NamedTuple):
    """The dotted names that a command contains.

    Attributes:
        classes: where an option takes a class; they are imported.
        arguments: in arguments of classes; they may be imported, if the class expects a class.
    """

    classes: Set[str]
    arguments: Set[str]

    def __or__(self, other: "NamedClasses") -> "NamedClasses":
        return NamedClasses(self.classes | other.classes, self.arguments | other.arguments)


def named_classes(arguments: Sequence[str]) -> NamedClasses:
    """Collect the class paths in a command: in options that take classes, and inline."""
    classes: set[str] = set()
    others: set[str] = set()
    for before, word in zip(["", *arguments], arguments, strict=False):
        option, _, inline = word.partition("=")
        name, value = (option, inline) if inline else (before, word)
        _, *parts = name.split(".")
        parsed = parse_inline(value)
        if value.startswith("{"):
            classes |= class_names(parsed)
            others |= argument_names(parsed, ())
        elif parts and parts[0].rstrip("+") in COMPONENT_OPTIONS:
            if parts[1:] in ([], ["class_path"]):
                classes |= class_names({parts[0].rstrip("+"): parsed})
                others |= argument_names(parsed, ())
            else:
                others |= dotted_names(parsed)
    return NamedClasses(classes, others)


def parse_inline(value: str) -> Any:
    """Return the structure in an inline value, such as `[Noise, Cutout]`; else the value."""
    try:
        return yaml.safe_load(value) if value[:1] in ("{", "[") else value
    except yaml.YAMLError:
        return value


def read_seeds(text: str) -> list[int]:
    """Read `1..5` or `1,2,7`.

    Raises:
        UserError: the text is neither.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        problem = ""
        if match is None:
            problem = "expected 1..5 or 1,2,7"
        elif first > last:
            problem = f"the lower seed comes first: {last}..{first}"
        elif last >= 2**32:
            problem = "the largest seed is 4294967295"
        elif last - first >= MAX_SEEDS:
            problem = f"give at most {MAX_SEEDS:,} seeds"
        if problem:
            raise UserError(f"--seeds: invalid value {text}; {problem}", status=2)
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))
