"""Decide which configurations may be parsed, and which classes they may import.

See `docs/decisions/trust.md`: a file of a run is the user's own if it is signed, or if the user
adds `--trust`; any other file is untrusted data.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mnist_lightning.cli.parser import NamedClasses, named_classes, read_files
from mnist_lightning.errors import UserError
from mnist_lightning.files import read_yaml
from mnist_lightning.networks.registry import ARCHITECTURES, REGISTERED, check_weights
from mnist_lightning.runs import config_schema, trusted_paths
from mnist_lightning.runs.checkpoint import network_weights
from mnist_lightning.runs.class_names import argument_names, class_names, find_hidden_structure
from mnist_lightning.runs.config import Config, check_costs, remove_machine_options
from mnist_lightning.runs.former_versions import upgrade_names
from mnist_lightning.training.registry import SCHEMA, USER_SCHEMA


class TrustedConfig(NamedTuple):
    """A configuration that was compared with its schema.

    Attributes:
        content: its options and their values.
        allowed: the names that it may import besides the registered classes.
        own: whether it is the user's own; if not, it controls nothing on this machine.
    """

    content: Config
    allowed: NamedClasses = NamedClasses(frozenset(), frozenset())
    own: bool = True


def trusted_config(
    config: Config, signed: bool, trust: bool, arguments: Sequence[str]
) -> TrustedConfig:
    """Check the configuration of a run before it is parsed.

    Args:
        config: the content of a `config.yaml`, or the configuration in a checkpoint.
        signed: whether this user's program wrote that file, which is then valid.
        trust: whether the user trusts the author of the file.
        arguments: of the command, which may name classes.

    Raises:
        InvalidConfigError: the configuration does not match the schema.
        UserError: it names a class without the user's consent.
    """
    named = named_classes(arguments)
    if trust:
        allowed = named | _names_of(config)
        if not signed:
            config_schema.check_config(config, USER_SCHEMA, allowed.classes)
        _remember_own_classes(allowed)
        return TrustedConfig(config, allowed)
    if signed:
        # The signature identifies the author of the run, not that of `net.py` in this directory.
        foreign = config_schema.foreign_classes(config, USER_SCHEMA, named.classes)
        if foreign and not trusted_paths.is_known(Path.cwd()):
            raise UserError(
                f"the run uses the class {foreign[0]}, but in this directory no class of your own "
                f"is allowed yet; give it in this command (--model.network {foreign[0]}), or "
                "add --trust"
            )
        return TrustedConfig(config, named | _names_of(config))
    content = remove_machine_options(config) if isinstance(config, dict) else config
    config_schema.check_config(content, SCHEMA, named.classes)
    if "model" not in content:
        raise config_schema.InvalidConfigError("the configuration has no model")
    check_costs(content)
    return TrustedConfig(content, named, own=False)


def read_settings(arguments: Sequence[str], trust: bool) -> tuple[NamedClasses, list[str]]:
    """Read the files of settings that a command names; collect the allowed classes.

    Returns:
        The classes, and the arguments of the command, with each file replaced by its content.

    Raises:
        UserError: a file names a class that the command does not, without `--trust`.
    """
    allowed = named = named_classes(arguments)

    def read(path: Path, section: str) -> dict[str, Any]:
        nonlocal allowed
        content = upgrade_names(read_yaml(path))
        if not isinstance(content, dict):
            raise UserError(f"{path} must contain a mapping of options to values", status=2)
        settings = {section: content} if section else content
        for name in USER_SCHEMA.sections.keys() & settings.keys():
            if settings[name] is None:
                raise UserError(f"--{name}: null is not allowed; give a value or omit it", 2)
            if not isinstance(settings[name], dict):
                raise UserError(f"{path}: {name} must be a mapping of options to values", 2)
        if trust:
            allowed |= _names_of(settings)
        else:
            refuse_foreign(settings, str(path), named)
        return content

    inline = read_files(arguments, read)
    _remember_own_classes(allowed)
    return allowed, inline


def refuse_foreign(
    content: Any, where: str, named: NamedClasses, schema: config_schema.Schema = USER_SCHEMA
) -> None:
    """Refuse settings that name a class without consent, or contain one inside a string.

    Raises:
        UserError: the settings contain such a class.
    """
    if foreign := config_schema.foreign_classes(content, schema, named.classes):
        raise UserError(config_schema.untrusted_message(foreign[0], where), status=2)
    if hidden := find_hidden_structure(content):
        problem = f"{where} contains settings in a string or in another file: {hidden}"
        raise UserError(f"{problem}; write them as nested YAML, or add --trust", status=2)


def _remember_own_classes(allowed: NamedClasses) -> None:
    """Remember the working directory, if the user's own classes are used in it."""
    if allowed.classes - USER_SCHEMA.components.keys():
        trusted_paths.remember(Path.cwd())


def _names_of(config: Config) -> NamedClasses:
    return NamedClasses(class_names(config), argument_names(config, USER_SCHEMA.components))


def check_network(base: TrustedConfig, checkpoint: dict[str, Any]) -> None:
    """Compare the network of an untrusted run with its weights, before it is built.

    Raises:
        UserError: the weights belong to another network.
    """
    network = base.content.get("model", {}).get("network")
    if base.own or not isinstance(network, dict):
        return
    if network["class_path"] in ARCHITECTURES | REGISTERED:
        check_weights(network, network_weights(checkpoint))
