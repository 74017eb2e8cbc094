"""Check the search space of a sweep before it is used: its options, values and classes."""

from pathlib import Path
from typing import Any

import yaml

from mnist_lightning import files
from mnist_lightning.cli.parser import named_classes
from mnist_lightning.cli.suggestions import closest_option
from mnist_lightning.cli.trust import refuse_foreign
from mnist_lightning.errors import UserError
from mnist_lightning.runs.class_names import nest_options
from mnist_lightning.runs.config import MACHINE_OPTIONS
from mnist_lightning.training.registry import SCHEMA
from mnist_lightning.tuning.search_space import SearchSpace

# A sweep cannot vary how this machine works, where it writes, and whom it trusts.
NOT_SEARCHED = {*MACHINE_OPTIONS, "data.data_dir", "config", "ckpt_path", "run_dir", "init_from"}
NOT_SEARCHED |= {"seeds", "trust", "keep_last"}


def refuse_foreign_space(space: SearchSpace, path: Path, arguments: list[str]) -> None:
    """Refuse a space that names classes without consent, or options of this machine.

    Args:
        space: the content of the file.
        path: the file.
        arguments: of the command, without the space.

    Raises:
        UserError: it does.
    """
    where, named = f"--space {path}", named_classes(arguments)
    for name, values in space.ranges.items():
        machine = next((each for each in NOT_SEARCHED if f"{name}.".startswith(f"{each}.")), None)
        if machine is not None:
            raise UserError(f"{where}: a sweep cannot vary {machine}; give it in the command", 2)
        if not _is_option(name):
            sections = SCHEMA.sections.items()
            options = [f"{section}.{option}" for section, names in sections for option in names]
            similar = closest_option(name, options)
            raise UserError(f"{where}: unknown option {name}{similar}", status=2)
        for value in values.values:
            refuse_foreign(nest_options({name: _parsed(value)}), where, named, SCHEMA)


def _is_option(name: str) -> bool:
    """Return whether a name is an option, such as `data.seed`, or an argument of its class.

    `model.network.help` is not: the parser imports the class whose help is requested.
    """
    parts = name.removesuffix("+").split(".")
    section, option = ("", parts[0]) if len(parts) == 1 else parts[:2]
    return option in SCHEMA.sections.get(section, {}) and parts[-1] != "help"


def _parsed(value: Any) -> Any:
    """Return the meaning of an option's value: a text may be a structure in YAML."""
    try:
        parsed = files.parse_yaml(value) if isinstance(value, str) else value
    except (files.LimitError, ValueError, yaml.YAMLError):
        return value
    return parsed if isinstance(parsed, dict | list) else value
